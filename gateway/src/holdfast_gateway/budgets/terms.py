"""The budgets of a site as they are configured, and the words in which they are told."""

from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from holdfast_gateway.budgets.windows import Period

Measure = Literal["tokens", "cost", "concurrency"]
SubjectKind = Literal["key", "user", "team", "agent", "everybody"]

EACH = "*"
MICRO = 1_000_000

_Name = Annotated[str, Field(min_length=1, max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Strict):
    """How much one subject may use: of one model or of all, in a window or at one time."""

    key: _Name | None = Field(
        default=None, description="Id of a token (holdfast token list), or *: each for itself."
    )
    user: _Name | None = Field(
        default=None, description="A user with all their agents, or a service; or *: each."
    )
    team: _Name | None = Field(
        default=None, description="A team, for what is counted for it; or *: each."
    )
    agent: _Name | None = Field(default=None, description="An agent, or *: each.")
    everybody: Literal[True] | None = Field(default=None, description="All together.")
    model: _Name | None = Field(default=None, description="Counts this model only.")
    tokens: int | None = Field(
        default=None, ge=0, lt=10**15, strict=True, description="Prompt and completion tokens."
    )
    cost: Decimal | None = Field(
        default=None, ge=0, lt=10**9, decimal_places=6, description="In the site's currency."
    )
    concurrency: int | None = Field(
        default=None, ge=0, lt=10**6, strict=True, description="Requests at one time."
    )
    per: Period | None = Field(
        default=None, description="Window of tokens or cost, by UTC: minute, day or month."
    )
    warn_at: float = Field(
        default=0.8, gt=0, le=1, description="Share of it from which answers carry a warning."
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        for fields in (
            ("key", "user", "team", "agent", "everybody"),
            ("tokens", "cost", "concurrency"),
        ):
            said = [field for field in fields if getattr(self, field) is not None]
            if len(said) != 1:
                found = " and ".join(said) or "none"
                msg = f"a budget has exactly one of {', '.join(fields)}; found {found}"
                raise ValueError(msg)
        if (self.per is None) != (self.concurrency is not None):
            msg = "tokens and cost need 'per' (minute, day or month); concurrency has none"
            raise ValueError(msg)
        return self

    @cached_property
    def kind(self) -> SubjectKind:
        """Return what it is the budget of."""
        kinds: tuple[SubjectKind, ...] = ("key", "user", "team", "agent")
        for kind in kinds:
            if getattr(self, kind) is not None:
                return kind
        return "everybody"

    @cached_property
    def subject(self) -> str:
        """Return whose it is: a name, or * for each; empty for everybody."""
        return "" if self.everybody else str(getattr(self, self.kind))

    @cached_property
    def measure(self) -> Measure:
        """Return what it counts."""
        if self.tokens is not None:
            return "tokens"
        return "cost" if self.cost is not None else "concurrency"

    @cached_property
    def limit(self) -> int:
        """Return how much there is: tokens, requests at one time, or micro-units of cost."""
        if self.cost is not None:
            return int(self.cost * MICRO)
        return self.tokens if self.tokens is not None else self.concurrency or 0

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what makes it this budget, whatever its limit: two with the same would clash."""
        return (self.measure, self.per or "", self.kind, self.subject, self.model or "")

    def account(self, subject: str) -> str:
        """Return the name under which the database keeps what a subject has of it."""
        return ":".join((self.measure, self.per or "", self.kind, subject, self.model or ""))

    def words(self, subject: str, currency: str) -> str:
        """Return it as a sentence names it: user 'ada': 1000 tokens a day of 'org/model'."""
        whose = "everybody" if self.kind == "everybody" else f"{self.kind} '{subject}'"
        much = amount(self.limit, self.measure, currency)
        much += " at one time" if self.per is None else f" a {self.per}"
        return f"{whose}: {much}" + (f" of '{self.model}'" if self.model else "")


class BudgetRules(_Strict):
    """What holds for all budgets of a site."""

    grace_seconds: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="While the database is away, what is leased may be used for so long.",
    )
    completion_tokens: int = Field(
        default=4096,
        ge=1,
        description="max_tokens of a request under a budget that names none, where "
        "context_tokens of its model is unknown.",
    )
    template_tokens: int = Field(
        default=256,
        ge=0,
        description="Reserved for what chat templates add to a prompt; freed with the first count.",
    )


def faults(budgets: tuple[Budget, ...], tariffs: dict[str, bool]) -> list[str]:
    """Return what is wrong between budgets; `tariffs` says of each model whether it has prices."""
    found = []
    seen: set[tuple[str, ...]] = set()
    for budget in budgets:
        if budget.identity in seen:
            found.append(f"two budgets are {budget.words(budget.subject, '')} but for the amount")
        seen.add(budget.identity)
        if budget.model is not None and budget.model not in tariffs:
            found.append(f"a budget counts '{budget.model}', which is no model here")
        if budget.measure == "cost":
            found += [
                f"a budget of cost counts '{model}', which has no tariff"
                for model, priced in tariffs.items()
                if not priced and budget.model in {None, model}
            ]
    return list(dict.fromkeys(found))


def amount(number: int, measure: Measure, currency: str) -> str:
    """Return an amount in words, with its unit."""
    if measure == "cost":
        whole, micro = divmod(abs(number), MICRO)
        digits = f"{micro:06}".rstrip("0").ljust(2, "0")
        return f"{'-' if number < 0 else ''}{whole}.{digits} {currency}".rstrip()
    unit = "tokens" if measure == "tokens" else "requests"
    return f"{number} {unit if number != 1 else unit[:-1]}"
