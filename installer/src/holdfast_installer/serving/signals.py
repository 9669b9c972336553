"""What the site's own Prometheus says of a model's load, over a window."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.errors import HoldfastError
from holdfast_installer.remote import run_on

if TYPE_CHECKING:
    from holdfast_installer.site import Site

SCRAPE_SECONDS = 15
# Fewer readings than this share of the window's, and the window was not seen.
SEEN_SHARE = 0.5


class Load(BaseModel):
    """A model's load: means over the window of requests, p95 of the time to a first token in s.

    `ttft_seconds` is None where nobody asked anything; `readings` counts Prometheus's own.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    window_seconds: int
    readings: float
    waiting: float
    running: float
    ttft_seconds: float | None


def queries(model: str, seconds: int) -> dict[str, str]:
    """Return what Prometheus is asked, by what it tells.

    A request waits in its gateway's lane or in vLLM's queue; `ttft` is what users of streams see,
    `engine_ttft` what vLLM does.
    """
    of = f"{{model_name={json.dumps(model)}}}"
    lane = f"{{model={json.dumps(model)}}}"
    window = f"[{seconds}s:{SCRAPE_SECONDS}s]"
    held = f"(sum(holdfast_gateway_lane_queued{lane}) or vector(0))"
    return {
        "readings": f"count_over_time(sum(vllm:num_requests_running{of}){window})",
        "waiting": f"avg_over_time((sum(vllm:num_requests_waiting{of}) + {held}){window})",
        "running": f"avg_over_time(sum(vllm:num_requests_running{of}){window})",
        "ttft": _p95(f"holdfast_gateway_time_to_first_token_seconds_bucket{lane}", seconds),
        "engine_ttft": _p95(f"vllm:time_to_first_token_seconds_bucket{of}", seconds),
    }


def _p95(buckets: str, seconds: int) -> str:
    return f"histogram_quantile(0.95, sum by (le) (rate({buckets}[{seconds}s])))"


def load_of(site: Site, model: str, window_seconds: int) -> Load:
    """Ask Prometheus on the control host; HoldfastError where it did not see the window."""
    program = script("prometheus")
    argument = json.dumps(queries(model, window_seconds))
    control = site.with_role("control")[0]
    done = run_on(site, control, ["python3", "-", argument], given=program)
    if done.returncode:
        raise HoldfastError(
            "Prometheus does not answer on the control host.",
            where=control.name,
            cause=done.stderr.strip()[-400:],
            next_command="holdfast status --site SITE.yml",
        )
    return read(model, window_seconds, json.loads(done.stdout))


def read(model: str, window_seconds: int, told: dict[str, float | None]) -> Load:
    """Make a load of the answers; what was not seen is an error, never an idle model."""
    readings = told["readings"] or 0.0
    if readings < SEEN_SHARE * window_seconds / SCRAPE_SECONDS or told["waiting"] is None:
        raise HoldfastError(
            f"The load of {model} was not seen for {window_seconds} s.",
            cause=f"Prometheus has {readings:.0f} readings of it in that time",
            next_command="wait until its replicas have run that long, or give a shorter --window",
        )
    ttft = told["engine_ttft"] if told["ttft"] is None else told["ttft"]
    return Load(
        model=model,
        window_seconds=window_seconds,
        readings=readings,
        waiting=told["waiting"],
        running=told["running"] or 0.0,
        ttft_seconds=ttft if ttft is not None and math.isfinite(ttft) else None,
    )


def script(name: str) -> str:
    """Return the text of a script that runs on a host."""
    folder = resources.files("holdfast_installer.serving").joinpath("scripts")
    return folder.joinpath(f"{name}.py").read_text(encoding="utf-8")
