"""Whether the engine options of a site file are those of the vLLM that will read them.

vLLM itself would say so too: on the host, after minutes, in the log of a unit that does not start.
What each version knows was written down by profiles/read_vllm_options.py.
"""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any  # Any: JSON

import holdfast_profiles
from holdfast_installer.errors import Finding
from holdfast_installer.plan.model_contexts import CONFIG
from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from holdfast_installer.plan.placement import Placement
    from holdfast_installer.profiles import HardwareProfile
    from holdfast_installer.site import Model, Site

# Options that would open a door, reach outside, run other people's programs or break the wiring.
CLOSED = {
    "allowed_local_media_path": "it lets users read files of the host",
    "api_server_count": "metrics and draining count on one server a unit",
    "code_revision": "no program of a model's is run",
    "config": "the platform writes the configuration",
    "data_parallel_address": "one replica is one unit; use replicas",
    "data_parallel_size": "one replica is one unit; use replicas",
    "device_ids": "the planner gives each replica its GPUs",
    "disable_log_stats": "draining and scaling read them",
    "download_dir": "models are served from where they were checked",
    "enable_log_outputs": "answers are not logged",
    "enable_log_requests": "prompts are not logged",
    "grpc": "nothing guards that port",
    "headless": "nobody could reach it",
    "hf_token": "nothing is asked of a hub",
    "io_processor_plugin": "it loads programs",
    "kv_events_config": "it opens a port",
    "kv_transfer_config": "it opens a connection that is not encrypted",
    "logits_processors": "it loads programs",
    "master_addr": "one model over several hosts is not supported yet",
    "middleware": "it loads programs",
    "nnodes": "one model over several hosts is not supported yet",
    "otlp_traces_endpoint": "it sends traces elsewhere",
    "profiler_config": "it writes profiles of users' requests",
    "reasoning_parser_plugin": "it loads programs",
    "revision": "models[].revision says it",
    "scheduler_cls": "it loads programs",
    "ssl_ciphers": "the platform sets what TLS is spoken",
    "tokenizer_revision": "models[].revision says it",
    "tool_parser_plugin": "it loads programs",
    "tool_server": "it reaches other servers",
    "trust_request_chat_template": "users would send templates, which are programs",
    "trust_request_mm_kwargs": "users would set options of the processor",
    "worker_cls": "it loads programs",
    "worker_extension_cls": "it loads programs",
}
# Ways to speculate that need no second model.
DRAFTLESS = re.compile(r"ngram|\[ngram\]|suffix|mtp|\w+_mtp")
KINDS: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "list": list,
    "dict": dict,
}
SIZE = re.compile(r"\d+(\.\d+)?[kmgt]|\d+[KMGT]?|auto|-1")


def option_findings(
    site: Site, placement: Placement, contexts: Mapping[str, int]
) -> Iterator[Finding]:
    """Yield what is wrong with the options of each model; `contexts` by digest of config.json.

    A version nobody wrote down yields one inconclusive finding: its options are not checked.
    """
    longest = {
        model.id: contexts[file.digest]
        for model in placement.models
        for file in model.files
        if file.filename == CONFIG and file.digest in contexts
    }
    for model in site.models:
        pools = (model.pool, *(one.pool for one in model.pools))
        hosts = [placement.hardware[host.name] for pool in pools for host in site.in_pool(pool)]
        for hardware in sorted(set(hosts) - {""}):
            profile = hardware_profile(hardware)
            known = known_options(version_of(profile))
            if known is None:
                if model.vllm:
                    yield Finding(
                        name="vllm-options",
                        verdict="inconclusive",
                        detail=f"{model.id}: which options vLLM {version_of(profile)} has was not "
                        "written down; vLLM says so itself when it starts",
                    )
                continue
            for problem in problems(model, known, hardware, longest.get(model.id)):
                yield Finding(
                    name="vllm-option",
                    verdict="fail",
                    detail=f"{model.id}: {problem}",
                    fix="correct models[].vllm in site.yml",
                )


def version_of(profile: HardwareProfile) -> str:
    """Return the version of vLLM that a profile pins."""
    pins = (re.fullmatch(r"vllm(?:-\w+)?==([^+]+).*", one) for one in profile.wheels.requirements)
    return next((pin[1] for pin in pins if pin), "")


@cache
def known_options(version: str) -> dict[str, Any] | None:
    """Return what was written down of a version of vLLM, None where nothing was."""
    file = holdfast_profiles.folder("vllm") / f"{version}.json"
    if not version or not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def problems(
    model: Model, known: dict[str, Any], hardware: str, longest: int | None
) -> Iterator[str]:
    """Yield, in words, what is wrong with the options of a model."""
    options: dict[str, Any] = known["options"]
    version = known["version"]
    for name, value in model.vllm.items():
        if name in CLOSED:
            yield f"{name} cannot be set: {CLOSED[name]}"
        elif name not in options:
            yield f"vLLM {version} has no option {name}{_nearest(name, list(options))}"
        else:
            yield from _value(name, value, options[name])
    yield from _contradictions(model, known, hardware, longest)


def _value(name: str, value: JsonValue, option: dict[str, Any]) -> Iterator[str]:
    kinds: list[str] = option["kinds"]
    if "any" not in kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{name} takes {' or '.join(kinds)}; found {value!r}"
        return
    if "choices" in option and str(value) not in option["choices"]:
        near = _nearest(str(value), option["choices"]) or f": {', '.join(option['choices'])}"
        yield f"{name} has no value {value!r}{near}"
    if {"int", "str"} <= set(kinds) and isinstance(value, str) and not SIZE.fullmatch(value):
        yield f"{name} takes a number such as 4096 or 32k; found {value!r}"
    if isinstance(value, dict) and "fields" in option:
        for key in value:
            if key not in option["fields"]:
                yield f"{name} has no key {key}{_nearest(key, option['fields'])}"


def _is(value: JsonValue, kind: str) -> bool:
    # True is an int to Python, and not to vLLM
    return isinstance(value, KINDS[kind]) and (kind == "bool") == isinstance(value, bool)


def _contradictions(
    model: Model, known: dict[str, Any], hardware: str, longest: int | None
) -> Iterator[str]:
    length = number(model.vllm.get("max_model_len"))
    if length is not None and longest is not None and length > longest:
        yield f"max_model_len is {length}, and the model's own config.json says {longest}"
    way = model.vllm.get("quantization")
    if isinstance(way, str):
        if way not in known["quantization"]:
            near = _nearest(way, known["quantization"])
            yield f"vLLM {known['version']} has no quantization {way}{near}"
        elif way not in known["quantization_on"].get(hardware, known["quantization"]):
            yield f"quantization {way} is not supported on {hardware}"
    speculation = model.vllm.get("speculative_config")
    if isinstance(speculation, dict):
        method, draft = str(speculation.get("method", "")), speculation.get("model")
        if not DRAFTLESS.fullmatch(method) or draft not in {None, method, "ngram"}:
            yield (
                f"speculative_config asks for a second model ({draft or method or 'unnamed'}), "
                "which no host pulls; ngram, suffix and a model's own mtp layers need none"
            )
    share = model.vllm.get("gpu_memory_utilization")
    if isinstance(share, int | float) and not 0 < share <= 1:
        yield f"gpu_memory_utilization is a share between 0 and 1; found {share}"


def number(value: object) -> int | None:
    """Return what vLLM makes of a number such as 32k (thousands) or 4K (times 1,024)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", value) if isinstance(value, str) else None
    if found is None:
        return None
    power = " kmgt".index(found[2].lower() or " ")
    return int(float(found[1]) * (1024 if found[2].isupper() else 1000) ** power)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
