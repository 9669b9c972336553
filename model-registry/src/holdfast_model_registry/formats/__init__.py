"""What a file really is, told by its content: its name is only a claim."""

from holdfast_model_registry.formats.observation import FormatError, Observation
from holdfast_model_registry.formats.recognition import observe

__all__ = ["FormatError", "Observation", "observe"]
