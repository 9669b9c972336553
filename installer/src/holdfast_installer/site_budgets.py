"""The Site's budgets: what may be used at most, and what must agree with the rest of the Site."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

SUBJECTS = ("key", "user", "team", "agent", "everybody")
MEASURES = ("tokens", "cost", "concurrency")
EACH = "*"

Name = Annotated[
    str, StringConstraints(pattern=r"^(\*|[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?)$", max_length=63)
]
Amount = Annotated[Decimal, Field(ge=0, lt=10**9, decimal_places=6)]


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number is expected; found {value}")  # noqa: TRY004 - pydantic collects ValueError only
    return value


Count = Annotated[int, BeforeValidator(_no_bool)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Part):
    """How much one subject may use: of one model or of all, in a window or at one time."""

    key: Name | None = Field(
        None, description="Id of a token (`holdfast token list`), or *: each for itself."
    )
    user: Name | None = Field(
        None, description="A user with all their agents, or a service; or *: each."
    )
    team: Name | None = Field(None, description="A team, for what is counted for it; or *: each.")
    agent: Name | None = Field(None, description="An agent, or *: each.")
    everybody: Literal[True] | None = Field(None, description="All together.")
    model: str | None = Field(None, description="Counts this model only.")
    tokens: Count | None = Field(None, ge=0, lt=10**15, description="Prompt and completion tokens.")
    cost: Amount | None = Field(None, description="In the site's currency, by its tariffs.")
    concurrency: Count | None = Field(
        None, ge=0, lt=10**6, description="Requests at one time; more are refused."
    )
    per: Literal["minute", "day", "month"] | None = Field(
        None, description="Window of tokens or cost, by UTC."
    )
    warn_at: float = Field(
        0.8, gt=0, le=1, description="Share of it from which answers carry a warning."
    )

    def said(self, fields: Sequence[str]) -> list[str]:
        """Return which of these fields are set."""
        return [field for field in fields if getattr(self, field) is not None]


class BudgetRules(_Part):
    """What holds for all budgets of the site."""

    grace_seconds: float = Field(
        30, ge=0, le=3600, description="Use of what is leased while the database is away."
    )
    completion_tokens: Count = Field(
        4096, ge=1, description="Most tokens of an answer where neither client nor model says."
    )
    template_tokens: Count = Field(
        256, ge=0, description="Reserved for what a chat template adds to a prompt."
    )


def budget_disagreements(
    budgets: Sequence[Budget],
    models: Collection[str],
    teams: Collection[str],
    tariffs: Collection[str],
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what is wrong in a site's budgets: where (path of keys) and what, in words."""
    seen: dict[tuple[object, ...], int] = {}
    for i, budget in enumerate(budgets):
        here = ("budgets", i)
        subject, measure = budget.said(SUBJECTS), budget.said(MEASURES)
        for fields, said in ((SUBJECTS, subject), (MEASURES, measure)):
            if len(said) != 1:
                found = " and ".join(said) or "none"
                yield here, f"a budget has exactly one of {', '.join(fields)}; found {found}"
        if len(subject) != 1 or len(measure) != 1:
            continue
        if (budget.per is None) != (budget.concurrency is not None):
            yield (
                (*here, "per"),
                "tokens and cost are per minute, day or month; concurrency is not",
            )
        if budget.team not in {None, EACH} and budget.team not in teams:
            known = ", ".join(sorted(teams)) or "none"
            yield (*here, "team"), f"no such team: {budget.team!r}; known teams: {known}"
        if budget.model is not None and budget.model not in models:
            known = ", ".join(sorted(models)) or "none"
            yield (*here, "model"), f"no such model: {budget.model!r}; known models: {known}"
        counted = [model for model in models if budget.model in {None, model}]
        free = [model for model in counted if model not in tariffs]
        if budget.cost is not None and free:
            yield (*here, "cost"), f"tariffs has no prices of {', '.join(sorted(free))}"
        whose = (subject[0], getattr(budget, subject[0]), measure[0], budget.per, budget.model)
        if whose in seen:
            yield here, f"counts the same as budgets[{seen[whose]}]; write one of them"
        seen.setdefault(whose, i)
