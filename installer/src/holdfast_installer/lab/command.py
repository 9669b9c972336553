"""`holdfast lab`: options in, calls, tables out."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click
from rich.table import Table

from holdfast_installer.console import console, emit, json_option
from holdfast_installer.errors import Finding, Refused
from holdfast_installer.lab import capture, cluster, layout, processes

_name_option = click.option(
    "--name", default="quickstart", show_default=True, help="The lab, where there are several."
)


@click.group()
def lab() -> None:
    """Boot sealed Debian hosts on this machine and rehearse on them."""


@lab.command()
@_name_option
@click.option(
    "--hosts",
    default="",
    help=f"Hosts to boot, with commas; a new lab gets {','.join(layout.DEFAULT_HOSTS)}.",
)
@json_option
def up(name: str, hosts: str, *, as_json: bool) -> None:
    """Boot the lab, or what of it is not up; a lab that is up is left as it is."""
    wanted = [host.strip() for host in hosts.split(",") if host.strip()]
    started = time.monotonic()
    booted = cluster.up(name, wanted, say=_say)
    _say(f"lab {name} is up after {time.monotonic() - started:.1f} s")
    emit(booted, as_json=as_json, render=lambda _: _render([cluster.status(name)]))


@lab.command()
@click.option("--name", default=None, help="The lab to look at; all where not given.")
@json_option
def status(name: str | None, *, as_json: bool) -> None:
    """Show the hosts of the labs and whether they answer."""
    seen = [cluster.status(one) for one in ([name] if name else cluster.names())]
    emit(seen, as_json=as_json, render=_render)


@lab.command()
@_name_option
@click.option("--host", "hosts", multiple=True, help="Only pull the plug of this host.")
@click.option("--all", "everything", is_flag=True, help="Take down every lab of this operator.")
@json_option
def down(name: str, hosts: tuple[str, ...], *, everything: bool, as_json: bool) -> None:
    """Take the lab away, with its disks and keys; repeat as often as you like."""
    if hosts:
        for host in hosts:
            cluster.stop_host(name, host)
        emit({"stopped": list(hosts)}, as_json=as_json, render=lambda _: None)
        return
    gone = cluster.names() if everything else [name]
    for one in gone:
        cluster.down(one, say=_say)
        _say(f"lab {one} is gone")
    emit({"down": gone}, as_json=as_json, render=lambda _: None)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@_name_option
@click.argument("where")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, where: str, command: tuple[str, ...]) -> None:
    """Run COMMAND at WHERE: operator, researcher, or a host (`lab exec operator -- ssh …`)."""
    line = cluster.command_in(layout.require(name), where, list(command))
    os.environ["PATH"] = processes.search_path()
    os.execvp(line[0], line)  # noqa: S606 - the command takes this process's place, no shell


@lab.command("capture")
@_name_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Record into this pcap.")
@click.option("--seconds", type=float, help="Stop after so long; else at Ctrl-C.")
@click.option(
    "--read", "recorded", type=click.Path(path_type=Path), help="Judge a recording instead."
)
@click.option(
    "--own-only", is_flag=True, help="Let nothing but the lab's own networks count as inside."
)
@json_option
def capture_frames(
    *,
    name: str,
    output: Path | None,
    seconds: float | None,
    recorded: Path | None,
    own_only: bool,
    as_json: bool,
) -> None:
    """Record the frames on the lab's bridge and name the packets that meant to leave the lab."""
    found = layout.require(name)
    if (output is None) == (recorded is None):
        raise click.UsageError("give either -o FILE to record or --read FILE to judge")
    if output is not None:
        with cluster.recording(found, output):
            _say(f"recording into {output}")
            _wait(seconds)
    path = output or recorded
    if path is None:
        raise AssertionError  # one of the two is given, see above
    outside = cluster.outside(found, path, own_only=own_only)
    report = {"frames": capture.statistics(path)["frames"], "outside": len(outside)}
    emit(report, as_json=as_json, render=lambda data: _say(f"{data['frames']} frames recorded"))
    if outside:
        raise Refused(
            f"{len(outside)} packets meant to leave the lab",
            tuple(_finding(packet) for packet in outside[:20]),
            next_command=f"tcpdump -nr {path}",
        )


def _finding(packet: capture.Packet) -> Finding:
    detail = f"from {packet.source} to {packet.destination}, protocol {packet.protocol}"
    return Finding(name="packet", verdict="fail", detail=detail)


def _wait(seconds: float | None) -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        if seconds is None:
            signal.sigwait(signals)
        else:
            signal.sigtimedwait(signals, seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _say(text: str) -> None:
    console.print(text, markup=False)


def _render(labs: list[cluster.LabStatus]) -> None:
    if not labs:
        _say("no lab; `holdfast lab up` makes one")
    for one in labs:
        table = Table(title=f"lab {one.name}  {one.network}  canary {one.canary}")
        for column in ("host", "address", "address6", "state", "pid"):
            table.add_column(column)
        for host in one.hosts:
            table.add_row(host.name, host.address, host.address6, host.state, str(host.pid or ""))
        console.print(table)
