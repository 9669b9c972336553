"""Problems of the registry told to a person; the shape is trust's."""

from __future__ import annotations

from holdfast_trust.errors import TrustError


class RegistryError(TrustError):
    """Something the registry cannot or will not do, with where, why and the next command."""
