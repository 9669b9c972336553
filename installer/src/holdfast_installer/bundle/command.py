"""`holdfast bundle`: options in, a call, and the outcome told."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.filesize import decimal

from holdfast_installer.bundle import build as building
from holdfast_installer.bundle import lock as locking
from holdfast_installer.bundle import lockfile, show, signature, sources
from holdfast_installer.bundle.manifest import KINDS
from holdfast_installer.bundle.store import Store
from holdfast_installer.bundle.verify import short
from holdfast_installer.bundle.verify import verify as verify_bundle
from holdfast_installer.console import console, emit, json_option, progress
from holdfast_installer.errors import Refused
from holdfast_installer.site_file import load_site

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def bundle() -> None:
    """Collect everything a site needs, signed, in one folder that can be carried.

    \b
    holdfast bundle lock --site site.yml -o bundle.lock    decide and pin
    holdfast bundle build --lock bundle.lock -o bundle     fetch, check, sign
    holdfast bundle verify bundle                          on either side of the gap
    holdfast bundle show bundle                            what, how big, from where, which licence
    """  # noqa: D301 - \b is click's mark for text to leave as it is


@bundle.command()
@click.option(
    "--site",
    "site_file",
    type=_FILE,
    default=Path("site.yml"),
    show_default=True,
    help="The site file.",
)
@click.option(
    "-o",
    "--output",
    type=_FILE,
    default=Path("bundle.lock"),
    show_default=True,
    help="Lock to write.",
)
@click.option(
    "--hardware",
    multiple=True,
    help="Hardware profile to carry vLLM for, instead of those the site names. May be repeated.",
)
@click.option(
    "--upgrade", is_flag=True, help="Resolve anew instead of keeping pins that still answer."
)
@json_option
def lock(
    *, site_file: Path, output: Path, hardware: tuple[str, ...], upgrade: bool, as_json: bool
) -> None:
    """Resolve what the site needs and pin every artifact by digest.

    Debian packages are resolved by apt in a private root, wheels by pip, models by the hub; all
    three as they are configured on this machine. Pins of an existing lock are kept where what was
    asked for is unchanged; the platform's own wheels and model folders are taken as they are now.
    """
    started = time.monotonic()
    site = load_site(site_file)
    names = sources.hardware_of_site(site, hardware)
    if not hardware and sources.is_undecided(site):
        console.print(
            f"hardware is auto: locking {', '.join(names)}; add --hardware NAME for others "
            "(holdfast survey recommends one per host)"
        )
    wanted = sources.sources_from_site(site, names, base=site_file.absolute().parent)
    previous = lockfile.read(output) if output.exists() and not upgrade else None
    made = locking.lock(
        wanted, previous=previous, store=Store(), tell=lambda line: console.print(f"  {line}")
    )
    made.write(output)
    found = show.of_lock(made)

    def render(_: show.Contents) -> None:
        show.print_totals(found, console)
        took = time.monotonic() - started
        console.print(f"{output}: {len(made.artifacts)} artifacts pinned in {took:.0f} s")

    emit(found, as_json=as_json, render=render)


@bundle.command()
@click.option(
    "--lock",
    "lock_file",
    type=_FILE,
    default=Path("bundle.lock"),
    show_default=True,
    help="Lock to build from.",
)
@click.option(
    "-o",
    "--output",
    type=_FOLDER,
    default=Path("bundle"),
    show_default=True,
    help="Folder of the bundle.",
)
@click.option("--key", type=_FILE, help="SSH key to sign with; by default one made on first use.")
@json_option
def build(*, lock_file: Path, output: Path, key: Path | None, as_json: bool) -> None:
    """Fetch what the lock names, check it, and write the signed bundle.

    Kill it at any moment: the same command goes on where it stopped. An older bundle in the same
    folder stays whole until the new one takes its place.
    """
    started = time.monotonic()
    pinned = lockfile.read(lock_file)
    store = Store()
    ahead = building.plan(pinned, store)
    console.print(
        f"bundle of {decimal(ahead.total)}; to fetch: {len(ahead.missing)} files, "
        f"{decimal(ahead.download)}; cache: {store.folder}"
    )
    with progress(unit="bytes") as bars:
        fetching = bars.add_task("fetch", total=ahead.download)
        checking = bars.add_task("check", total=ahead.total)
        built = building.build(
            pinned,
            output,
            store=store,
            key=key or signature.own_key(),
            watch=building.Watch(
                fetched=lambda count: bars.advance(fetching, count),
                checked=lambda count: bars.advance(checking, count),
            ),
        )
    outcome = {
        "directory": str(built.directory),
        "digest": built.digest,
        "changed": built.changed,
        "size": ahead.total,
        "fetched": ahead.download,
        "seconds": round(time.monotonic() - started, 1),
    }

    def render(_: object) -> None:
        done = "written" if built.changed else "unchanged"
        console.print(f"bundle {short(built.digest)} {done}: {output} ({outcome['seconds']} s)")

    emit(outcome, as_json=as_json, render=render)


@bundle.command()
@click.argument("directory", type=_FOLDER, default=Path("bundle"))
@click.option("--allowed-signers", type=_FILE, help="OpenSSH allowed_signers; by default your own.")
@click.option(
    "--threshold",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many different signers there must be.",
)
@json_option
@click.pass_context
def verify(
    context: click.Context,
    *,
    directory: Path,
    allowed_signers: Path | None,
    threshold: int,
    as_json: bool,
) -> None:
    """Check the signatures, then every byte; reads only. Exit code 3 with findings if it fails."""
    started = time.monotonic()
    try:
        with progress(unit="bytes") as bars:
            task = bars.add_task("verify", total=None)
            good = verify_bundle(
                directory,
                allowed_signers,
                threshold=threshold,
                moved=lambda count: bars.advance(task, count),
                ahead=lambda total: bars.update(task, total=total),
            )
    except Refused as refusal:
        if not as_json:
            raise
        told = {"verified": False, "problem": refusal.problem, "findings": refusal.findings}
        emit(told, as_json=True, render=lambda _: None)
        context.exit(refusal.exit_code)
    total = sum(good.manifest.sizes().values())
    outcome = {
        "verified": True,
        "digest": good.digest,
        "signers": good.signers,
        "artifacts": len(good.manifest.artifacts),
        "size": total,
        "seconds": round(time.monotonic() - started, 2),
    }

    def render(_: object) -> None:
        console.print(
            f"bundle {short(good.digest)} is whole: {len(good.manifest.artifacts)} artifacts, "
            f"{decimal(total)}, signed by {', '.join(good.signers)} ({outcome['seconds']} s)"
        )

    emit(outcome, as_json=as_json, render=render)


@bundle.command("show")
@click.argument("path", type=click.Path(path_type=Path), default=Path("bundle"))
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only this kind.")
@json_option
def show_command(*, path: Path, kinds: tuple[str, ...], as_json: bool) -> None:
    """Print what a bundle, or a lock, holds: sizes, origins, licences. Nothing is verified."""
    emit(
        show.contents(path),
        as_json=as_json,
        render=lambda found: show.print_contents(found, console, kinds=kinds or KINDS),
    )
