"""What a client is told of its budgets: refusals, what is left, and a warning before the wall."""

import math
from collections.abc import Iterable

from holdfast_gateway.api.errors import ApiError, unavailable
from holdfast_gateway.budgets.account import Account
from holdfast_gateway.budgets.bounds import Bound
from holdfast_gateway.budgets.terms import amount
from holdfast_gateway.budgets.windows import stamp

_SOON_SECONDS = 2
_LONGEST_RETRY_SECONDS = 60

Headers = tuple[tuple[bytes, bytes], ...]


def away() -> ApiError:
    """Return the refusal while nobody can know what is left."""
    return unavailable(
        "What is left of your budgets cannot be known now, so nothing is given away. Try again in "
        "a moment.",
        code="budgets_unavailable",
    )


def exceeded(account: Account, needed: int, bound: Bound, wall: float, currency: str) -> ApiError:
    """Return the refusal of a request that needs more than one budget leaves.

    Retry-After is the time to the renewal; short where requests in progress may free enough before
    it, and left out where the whole budget would not do.
    """
    budget = account.budget
    words = budget.words(account.subject, currency)
    if budget.measure == "concurrency":
        return _refusal(
            f"The budget of {words} is used up by requests in progress. Wait for one to end.",
            "rate_limit_exceeded",
            _SOON_SECONDS if budget.limit else None,
        )
    kind = "rate_limit_exceeded" if budget.per == "minute" else "insufficient_quota"
    could = (
        f"this request could use up to {amount(needed, budget.measure, currency)} (prompt at most "
        f"{bound.prompt} tokens, completion at most {bound.completion})."
    )
    # A client that leaves max_tokens out asks for all that the model can give.
    smaller = "Ask for less with max_tokens"
    if needed > budget.limit:
        told = f"The budget of {words} is too small: {could} {smaller}."
        return _refusal(told, kind, None)
    spent = max(0, account.others_spent + account.spent)
    held = max(0, budget.limit - spent - max(0, account.left) - max(0, account.free))
    left = max(0, budget.limit - spent - held)
    told = f"The budget of {words} leaves {amount(left, budget.measure, currency)}"
    if held:
        told += f", beside {amount(held, budget.measure, currency)} held by requests in progress"
    told += f"; {could} "
    retry_after = max(1, math.ceil(account.ends - wall))
    if spent + needed <= budget.limit:
        told += "Try again in a moment, or ask for less."
        retry_after = min(retry_after, _SOON_SECONDS)
    else:
        told += f"It is renewed at {stamp(account.ends)}. {smaller}, or later."
    return _refusal(told, kind, retry_after, _left(account, wall))


def headers(accounts: Iterable[Account], wall: float, currency: str) -> Headers:
    """Return what is left of the tightest budget of tokens, and a warning for each nearly used."""
    found: list[tuple[bytes, bytes]] = []
    tightest: Account | None = None
    share = math.inf
    for account in accounts:
        budget = account.budget
        limit, remaining = budget.limit, account.remaining
        left = remaining / limit if limit else 0.0
        if budget.measure == "tokens" and left < share:
            tightest, share = account, left
        if 1 - left >= budget.warn_at and budget.measure != "concurrency":
            warning = (
                f"{budget.words(account.subject, currency)}: "
                f"{amount(remaining, budget.measure, currency)} left until {stamp(account.ends)}"
            )
            found.append((b"x-holdfast-budget-warning", _header(warning)))
    if tightest is not None:
        found += _left(tightest, wall)
    return tuple(found)


def _left(account: Account, wall: float) -> Headers:
    """Return OpenAI's headers of what is left, of a budget of tokens."""
    if account.budget.measure != "tokens":
        return ()
    return (
        (b"x-ratelimit-limit-tokens", str(account.budget.limit).encode()),
        (b"x-ratelimit-remaining-tokens", str(account.remaining).encode()),
        (b"x-ratelimit-reset-tokens", _duration(account.ends - wall)),
    )


def _refusal(message: str, kind: str, retry_after: int | None, headers: Headers = ()) -> ApiError:
    told = {name.decode(): value.decode() for name, value in headers}
    if retry_after is not None:
        told["Retry-After"] = str(retry_after)
    if retry_after is None or retry_after > _LONGEST_RETRY_SECONDS:
        told["X-Should-Retry"] = "false"  # OpenAI's clients would try again at once, for nothing
    return ApiError(429, message, code="budget_exceeded", kind=kind, headers=told)


def _header(text: str) -> bytes:
    return "".join(each if " " <= each <= "~" else "?" for each in text).encode()


def _duration(seconds: float) -> bytes:
    """Return a time as OpenAI writes it: 1s, 6m0s, 23h59m12s."""
    whole = max(0, math.ceil(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s".encode()
    return f"{minute}m{second}s".encode() if minute else f"{second}s".encode()
