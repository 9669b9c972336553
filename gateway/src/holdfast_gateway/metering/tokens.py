"""Counting tokens from what vLLM reports, so that an aborted stream is billed exactly."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request. None is unknown, which is not the same as zero."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_usage(usage: Mapping[str, object]) -> Tokens:
    """Read an OpenAI usage object."""
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    # An embedding has no completion: vLLM says 0, OpenAI leaves the key out.
    completion = _count(usage.get("completion_tokens", 0))
    return Tokens(_count(usage.get("prompt_tokens")), cached, completion)


class Tally:
    """The running count of a stream.

    vLLM's continuous usage counts each choice for itself: choice i belongs to prompt i // n. The
    last event of a whole stream carries the sum, which then stands.
    """

    def __init__(self, choices_per_prompt: int = 1) -> None:
        self._choices_per_prompt = choices_per_prompt
        self._prompts: dict[int, int] = {}
        self._completions: dict[int, int] = {}
        self._total: Tokens | None = None

    def see(self, index: int, usage: Mapping[str, object]) -> None:
        """Take the count so far of one choice."""
        seen = read_usage(usage)
        if seen.prompt is not None:
            self._prompts[index // self._choices_per_prompt] = seen.prompt
        if seen.completion is not None:
            self._completions[index] = seen.completion

    def settle(self, usage: Mapping[str, object]) -> None:
        """Take the count of the whole request."""
        self._total = read_usage(usage)

    @property
    def tokens(self) -> Tokens:
        """Return the best count there is by now."""
        if self._total is not None:
            return self._total
        if not self._prompts:
            return Tokens()
        return Tokens(sum(self._prompts.values()), None, sum(self._completions.values()))
