"""Reserving what a request can cost at most, and settling on what it did."""

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from holdfast_gateway.budgets import bounds
from holdfast_gateway.budgets.account import Account, Hold
from holdfast_gateway.budgets.bounds import Bound
from holdfast_gateway.budgets.lease_store import LeaseStore
from holdfast_gateway.budgets.leasing import AwayError, Leasing, ShortError
from holdfast_gateway.budgets.terms import EACH, Budget, BudgetRules
from holdfast_gateway.budgets.words import Headers, away, exceeded, headers
from holdfast_gateway.config import Config
from holdfast_gateway.metering.tariff import Tariff, cost, most
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.question import Question

log = logging.getLogger("holdfast.gateway")

_SLOTS_OUTLIVE_GRACE_SECONDS = 15.0
_MOST_CACHED = 10_000


class Reservation:
    """What one request holds of its budgets until it is settled."""

    __slots__ = ("_bound", "_holds", "_request_id", "_tariff", "headers")

    def __init__(
        self,
        holds: Sequence[Hold] = (),
        bound: Bound | None = None,
        tariff: Tariff | None = None,
        request_id: str = "",
        told: Headers = (),
    ) -> None:
        self._holds = holds
        self._bound = bound
        self._tariff = tariff
        self._request_id = request_id
        self.headers = told
        """Response headers that tell the client what is left, and warn before the wall."""

    def counted(self, tokens: Tokens) -> None:
        """Take the count so far: the prompt's true size frees what was reserved above it."""
        if self._bound is None or tokens.prompt is None or self._bound.prompts != 1:
            return
        self._bound = bound = self._bound.counted(tokens.prompt)
        for hold in self._holds:
            surplus = hold.amount - _at_most(hold.account.budget, bound, self._tariff)
            if surplus > 0:
                hold.account.release(hold, surplus)

    def settle(self, tokens: Tokens, *, sent: bool) -> None:
        """Charge what was used and give back the rest; the first call counts.

        `sent` tells whether an upstream got the request: if not, nothing is charged; if it did
        and no count is known, all that was reserved is.
        """
        holds, self._holds = self._holds, ()
        for hold in holds:
            used = _used(hold, tokens, self._tariff) if sent else 0
            if used > hold.amount:
                log.error(
                    "%s: defect: %d %s reserved, %d used",
                    self._request_id,
                    hold.amount,
                    hold.account.budget.measure,
                    used,
                )
            hold.account.charge(hold, used)


class Budgets:
    """The budgets of a site, as far as this gateway holds leases on them."""

    def __init__(
        self,
        budgets: Sequence[Budget] = (),
        rules: BudgetRules | None = None,
        leasing: Leasing | None = None,
        currency: str = "EUR",
    ) -> None:
        self._budgets = budgets
        self._rules = rules or BudgetRules()
        self._currency = currency
        self._leasing = leasing
        named = [budget for budget in budgets if budget.subject != EACH]
        self._named = {budget.identity for budget in named}
        self._cached: dict[tuple[str | None, ...], tuple[Account, ...]] = {}
        self._forgotten = 0

    def limits(self, question: Question) -> dict[str, object]:
        """Return the fields that bound a request under budgets whose client did not."""
        model = question.model
        if model is None or not any(each.budget.per for each in self._accounts(question)):
            return {}
        return bounds.limits(question.call, model.context_tokens, self._rules)

    async def reserve(self, question: Question) -> Reservation:
        """Reserve, or raise ApiError: 429 that says which budget, how much, until when; or 503."""
        leasing, model = self._leasing, question.model
        accounts = self._accounts(question)
        if not accounts or leasing is None or model is None:
            return Reservation()
        bound = bounds.bound(question.call, model.context_tokens, self._rules)
        holds = [Hold(each, _at_most(each.budget, bound, model.tariff)) for each in accounts]
        try:
            if not leasing.take(holds):
                await leasing.lease(holds)
        except AwayError:
            raise away() from None
        except ShortError as short:
            hold = short.hold
            raise exceeded(
                hold.account, hold.amount, bound, leasing.wall(), self._currency
            ) from None
        told = headers(accounts, leasing.wall(), self._currency)
        return Reservation(holds, bound, model.tariff, question.request_id, told)

    def _accounts(self, question: Question) -> tuple[Account, ...]:
        """Return the accounts a request is charged to."""
        if self._leasing is None or not self._budgets:
            return ()
        principal = question.principal
        who = (
            principal.token_id,
            principal.kind,
            principal.name,
            principal.owner,
            question.team,
            question.call.model,
        )
        if self._forgotten != self._leasing.forgotten or len(self._cached) > _MOST_CACHED:
            self._forgotten = self._leasing.forgotten
            self._cached.clear()
        found = self._cached.get(who)
        if found is None:
            found = self._cached[who] = tuple(self._find(question, self._leasing))
        return found

    def _find(self, question: Question, leasing: Leasing) -> list[Account]:
        principal = question.principal
        agent = principal.kind == "agent"
        subjects: dict[str, str | None] = {
            "key": principal.token_id or None,
            "user": principal.owner if agent else principal.name,
            "team": question.team,
            "agent": principal.name if agent else None,
            "everybody": "",
        }
        found = []
        for budget in self._budgets:
            subject = subjects[budget.kind]
            if subject is None or budget.model not in {None, question.call.model}:
                continue
            if budget.subject == EACH:
                # Who is named has that budget instead of everyone's.
                measure, per, kind, _, model = budget.identity
                if (measure, per, kind, subject, model) in self._named:
                    continue
            elif budget.subject != subject:
                continue
            account = leasing.accounts.get(budget.account(subject))
            if account is None:
                account = Account(budget, subject)
                leasing.accounts[account.key] = account
            found.append(account)
        return found


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Budgets]:
    """Open the budgets of a site; on leaving, give back what is leased."""
    if not config.budgets:
        yield Budgets()
        return
    rules = config.budget_rules
    store = lease_store(config)
    # A name for each run: what an earlier one held and did not give back, it may have spent.
    leasing = Leasing(store, secrets.token_hex(8), rules.grace_seconds)
    leasing.start()
    try:
        yield Budgets(config.budgets, rules, leasing, config.currency)
    finally:
        await leasing.close()
        store.close()


def lease_store(config: Config) -> LeaseStore:
    """Return the database of a configuration's budgets, with its tables."""
    lease_seconds = config.budget_rules.grace_seconds + _SLOTS_OUTLIVE_GRACE_SECONDS
    store = LeaseStore(config.database, lease_seconds=lease_seconds)
    try:
        store.create_schema()
    except BaseException:
        store.close()
        raise
    return store


def _at_most(budget: Budget, bound: Bound, tariff: Tariff | None) -> int:
    if budget.measure == "concurrency":
        return 1
    if budget.measure == "tokens":
        return bound.tokens
    return 0 if tariff is None else most(bound.prompt, bound.completion, tariff)


def _used(hold: Hold, tokens: Tokens, tariff: Tariff | None) -> int:
    measure = hold.account.budget.measure
    if measure == "concurrency":
        return 0
    if tokens.prompt is None or tokens.completion is None:
        return hold.amount
    if measure == "tokens":
        return tokens.prompt + tokens.completion
    return 0 if tariff is None else cost(tokens, tariff)
