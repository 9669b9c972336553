"""The mock's tokenizer: the ids of a prompt say what its script is, for a continuation to follow.

The prompt is as many ids as the mock counts tokens for it, so that whoever compares ids with counts
finds them equal; each id after it is one word of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripted_upstream import Script

FIRST_WORD = 1000
_FAULTS = ("crash_after", "balancer_crash_after", "done_after", "hang_after", "crash_again_after")


def prompt_ids(script: Script) -> list[int]:
    """Return seven ids."""
    faults = (getattr(script, name) for name in _FAULTS)
    return [
        script.tokens,
        int(script.delay * 1000),
        *(0 if fault is None else fault + 1 for fault in faults),
    ]


def script_of(ids: list[int], script: type[Script]) -> tuple[Script, int]:
    """Return the script of a prompt in ids, and how many words were said of it.

    The continuation of a crash misbehaves as `crash_again_after` says, any other no more.
    """
    tokens, delay, *faults = ids[:7]
    said = len(ids) - 7
    read = dict(zip(_FAULTS, (fault - 1 if fault else None for fault in faults), strict=True))
    if said:
        again = read["crash_again_after"] if said == read["crash_after"] else None
        read = {"crash_after": again}
    return script(tokens=tokens, delay=delay / 1000, **read), said


def word_id(at: int) -> int:
    return FIRST_WORD + at
