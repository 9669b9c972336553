"""What a probe makes of one host's observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from holdfast_installer.errors import Verdict

SEE_WITNESS = "see canary.witness in site.yml"
MEND_CANARY = "mend the canary, then audit again"


class Judgement(NamedTuple):
    """A verdict in words; the control and the host are the caller's to add."""

    verdict: Verdict
    detail: str
    fix: str = ""
