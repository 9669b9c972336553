"""The command holdfast-gateway budgets: what is left of each."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway.budgets.lease_store import Balance
from holdfast_gateway.budgets.reservations import lease_store
from holdfast_gateway.budgets.terms import EACH, MICRO, Budget, Measure
from holdfast_gateway.budgets.windows import end_of, stamp, start_of
from holdfast_gateway.config import Config
from holdfast_gateway.terminal import config_option, fail, load_config, reason


@dataclass(frozen=True)
class Standing:
    """One subject's budget: amounts in tokens, requests or the currency.

    `leased` is what gateways hold of it, `left` what nobody holds or has spent. `renewed` is None
    where there is no window.
    """

    subject_kind: str
    subject: str
    measure: Measure
    per: str | None
    model: str | None
    limit: int | float
    spent: int | float
    leased: int | float
    left: int | float
    renewed: str | None


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def budgets(config_file: Path, *, as_json: bool) -> None:
    """Show what is spent, leased to gateways and left of each budget.

    What a gateway held that was killed counts as spent until the renewal.
    """
    config = load_config(config_file)
    try:
        found = standings(config)
    except (SQLAlchemyError, OSError) as error:
        fail(f"the database named in {config_file} cannot be read\n{reason(error)}")
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif found:
        click.echo(_table(found, config.currency))
    else:
        click.echo("no budgets", err=True)


def standings(config: Config) -> list[Standing]:
    """Return how each budget stands; of one that each has for himself, those who have used it."""
    store = lease_store(config)
    try:
        balances = {balance.account: balance for balance in store.balances()}
        now = store.now()
    finally:
        store.close()
    found = []
    named = {budget.identity for budget in config.budgets}
    for budget in config.budgets:
        if budget.subject != EACH:
            subjects = [budget.subject]
        else:
            measure, per, kind, _, model = budget.identity
            subjects = [
                subject
                for subject in _subjects(budget, balances)
                if (measure, per, kind, subject, model) not in named
            ]
        for subject in subjects:
            balance = balances.get(budget.account(subject))
            found.append(_standing(budget, subject, balance, now))
    return found


def _subjects(budget: Budget, balances: dict[str, Balance]) -> list[str]:
    """Return who has an account of a budget that each has for himself."""
    before, _, after = budget.account("\0").partition("\0")
    return sorted(
        name[len(before) : len(name) - len(after)]
        for name in balances
        if name.startswith(before)
        and name.endswith(after)
        and ":" not in name[len(before) : len(name) - len(after)]
    )


def _standing(budget: Budget, subject: str, balance: Balance | None, now: float) -> Standing:
    window = start_of(budget.per, now)
    spent = leased = 0
    if balance is not None and balance.window >= window:
        window, spent, leased = balance.window, balance.spent, balance.held
    left = max(0, budget.limit - spent - leased)

    def shown(amount: int) -> int | float:
        return amount / MICRO if budget.measure == "cost" else amount

    return Standing(
        subject_kind=budget.kind,
        subject=subject,
        measure=budget.measure,
        per=budget.per,
        model=budget.model,
        limit=shown(budget.limit),
        spent=shown(spent),
        leased=shown(leased),
        left=shown(left),
        renewed=None if budget.per is None else stamp(end_of(budget.per, window)),
    )


def _table(found: list[Standing], currency: str) -> str:
    head = ("whose", "of", "per", "model", "limit", "spent", "leased", "left", "renewed")
    rows = [
        (
            f"{each.subject_kind} {each.subject}".rstrip(),
            currency if each.measure == "cost" else each.measure,
            each.per or "",
            each.model or "all",
            *(
                f"{amount:g}" if isinstance(amount, float) else str(amount)
                for amount in (each.limit, each.spent, each.leased, each.left)
            ),
            each.renewed or "",
        )
        for each in found
    ]
    widths = [max(len(line[at]) for line in [head, *rows]) for at in range(len(head))]
    amounts = range(4, 8)
    return "\n".join(
        "  ".join(
            cell.rjust(widths[at]) if at in amounts else cell.ljust(widths[at])
            for at, cell in enumerate(line)
        ).rstrip()
        for line in [head, *rows]
    )
