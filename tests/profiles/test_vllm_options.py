"""What was written down of vLLM is what a real one says; VLLM_PYTHON names its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_file_is_what_the_environment_says() -> None:
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        pytest.skip("VLLM_PYTHON names no environment with vLLM")
    done = subprocess.run(
        [python, str(ROOT / "profiles/read_vllm_options.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    told = json.loads(done.stdout)
    kept = ROOT / f"profiles/src/holdfast_profiles/vllm/{told['version']}.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == told
