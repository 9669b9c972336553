"""Whether a canary is as good as what serves: figures in, findings out; pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from holdfast_installer.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

QUANTILE = 0.95


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Figures):
    """How much worse a canary may be than what serves."""

    errors: float = Field(0.0, ge=0, le=1, description="Share of requests.")
    ttft_ratio: float = Field(1.5, ge=1)
    # below this a difference is one of the machine's moods, not of the model
    ttft_slack_seconds: float = Field(0.1, ge=0)
    least_requests: int = Field(20, ge=1, description="Live requests that say something.")


class Asked(_Figures):
    """What came of the prompts at one replica; TTFT in seconds."""

    ttft: tuple[float, ...]
    errors: tuple[str, ...]
    answers: tuple[str, ...]


class Counters(_Figures):
    """What a replica counted; `ttft` are cumulative counts by upper bound in seconds."""

    requests: float = 0.0
    errors: float = 0.0
    ttft: dict[str, float] = {}
    problem: str = ""

    def since(self, before: Counters) -> Counters:
        """Return what was counted between two looks."""
        return Counters(
            requests=self.requests - before.requests,
            errors=self.errors - before.errors,
            ttft={bound: n - before.ttft.get(bound, 0.0) for bound, n in self.ttft.items()},
            problem=self.problem,
        )

    def quantile(self) -> float | None:
        """Return the bound under which 95 % of first tokens came, None where none came."""
        bounds = sorted((float(bound.replace("+Inf", "inf")), n) for bound, n in self.ttft.items())
        total = bounds[-1][1] if bounds else 0.0
        return (
            next((bound for bound, n in bounds if n >= QUANTILE * total), None) if total else None
        )


class Figure(_Figures):
    """One figure of both, beside what is allowed; `holds` is None where it says nothing."""

    name: str
    canary: float | None
    serving: float | None
    allowed: float | None
    holds: bool | None
    detail: str = ""


def of_prompts(canary: Asked, serving: Asked, limits: Thresholds) -> Iterator[Figure]:
    """Compare what both made of the same prompts."""
    ours, theirs = _share(canary), _share(serving)
    yield Figure(
        name="prompt-errors",
        canary=ours,
        serving=theirs,
        allowed=theirs + limits.errors,
        holds=ours <= theirs + limits.errors and bool(canary.ttft),
        detail="; ".join(list(dict.fromkeys(canary.errors))[:3]),
    )
    ours_ttft = statistics.median(canary.ttft) if canary.ttft else None
    theirs_ttft = statistics.median(serving.ttft) if serving.ttft else None
    yield _ttft("prompt-ttft-median", ours_ttft, theirs_ttft, limits)
    pairs = list(zip(canary.answers, serving.answers, strict=False))
    same = sum(one == other for one, other in pairs)
    other = next(((one, other) for one, other in pairs if one != other), None)
    yield Figure(
        name="same-answers",
        canary=float(same),
        serving=float(len(pairs)),
        allowed=None,
        holds=None,
        detail=f"for one, {other[0][:120]!r} instead of {other[1][:120]!r}" if other else "",
    )


def of_traffic(canary: Counters, serving: Counters, limits: Thresholds) -> Iterator[Figure]:
    """Compare what both did with the requests that users sent meanwhile."""
    if canary.problem:
        yield Figure(
            name="live", canary=None, serving=None, allowed=None, holds=False, detail=canary.problem
        )
        return
    few = min(canary.requests, serving.requests) < limits.least_requests
    ours, theirs = _rate(canary), _rate(serving)
    worse = ours > theirs + limits.errors
    yield Figure(
        name="live-errors",
        canary=ours,
        serving=theirs,
        allowed=theirs + limits.errors,
        holds=False if worse else None if few else True,
        detail=f"{canary.errors:.0f} of {canary.requests:.0f} requests",
    )
    figure = _ttft("live-ttft-p95", canary.quantile(), serving.quantile(), limits)
    yield figure.model_copy(update={"holds": None}) if few else figure


def findings(figures: list[Figure]) -> tuple[Finding, ...]:
    """Return what speaks against the canary, in words with the figures."""
    return tuple(
        Finding(
            name=one.name,
            verdict="fail",
            detail=f"canary {_shown(one.canary)}, serving {_shown(one.serving)}, "
            f"allowed {_shown(one.allowed)}" + (f": {one.detail}" if one.detail else ""),
        )
        for one in figures
        if one.holds is False
    )


def _ttft(name: str, canary: float | None, serving: float | None, limits: Thresholds) -> Figure:
    allowed = holds = None
    if serving is not None:
        allowed = max(serving * limits.ttft_ratio, serving + limits.ttft_slack_seconds)
        holds = canary is not None and canary <= allowed
    return Figure(name=name, canary=canary, serving=serving, allowed=allowed, holds=holds)


def _share(asked: Asked) -> float:
    total = len(asked.ttft) + len(asked.errors)
    return len(asked.errors) / total if total else 1.0


def _rate(counted: Counters) -> float:
    return counted.errors / counted.requests if counted.requests else 0.0


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3g}"
