"""What a stock client does with a hub, in calls that every version from 0.36 on has.

Run by a client's own interpreter: `python stock_client ENDPOINT FOLDER NAMES SUBJECT...`. NAMES is
JSON: tokens and repositories that the caller has prepared; a subject is a module beside this one.
Each scenario asserts for itself; what came of them is one JSON object, the last line of standard
output: {"version", "failed": {scenario: why}, "seconds": {scenario: how long}}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path


def main(endpoint: str, folder: str, names: str, *subjects: str) -> None:
    """Run every scenario of these subjects, whatever became of the one before."""
    given = json.loads(names)
    # Before the client is imported: it reads its environment then.
    os.environ |= {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": given["tokens"]["ada"],
        "HF_HOME": f"{folder}/home",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    import huggingface_hub
    from hub import Hub

    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for subject in subjects:
        for name, scenario in vars(importlib.import_module(subject)).items():
            if not name.startswith("scenario_"):
                continue
            title = f"{subject}-{name.removeprefix('scenario_')}"
            place = Path(folder) / name
            place.mkdir(parents=True)
            began = time.monotonic()
            try:
                scenario(Hub(endpoint, place, given))
            except Exception:  # noqa: BLE001 - a scenario's failure is a finding
                failed[title] = traceback.format_exc(limit=-6)[-3000:]
            seconds[title] = round(time.monotonic() - began, 2)
    told = {"version": huggingface_hub.__version__, "failed": failed, "seconds": seconds}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
