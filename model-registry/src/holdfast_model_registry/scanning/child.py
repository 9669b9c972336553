"""Look at one file to its end, in a process of its own that may fail alone.

Arguments: the file's path in its repository, and where its content lies. Prints the observation as
JSON. Hostile content can use up this process's memory and time, not those of the registry.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

from holdfast_model_registry.formats import Observation, observe
from holdfast_model_registry.formats.observation import FAILED, OTHER

MEMORY: Final = 2 << 30
SECONDS: Final = 600


def look(path: str, content: Path) -> Observation:
    """Return what the child sees; whatever ends it early is an observation of danger."""
    command = [sys.executable, "-I", "-m", __spec__.name, path, str(content)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        if done.returncode == 0:
            return Observation.from_json(json.loads(done.stdout))
        said = done.stderr.strip().rpartition("\n")[2]
        why = said[:200] or f"the scanner ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"the scanner was not done after {SECONDS} s"
    except (ValueError, KeyError, TypeError) as error:
        why = f"the scanner said nothing that can be read: {error}"[:200]
    return Observation(OTHER, advice=(f"{FAILED}: {why}",), dangerous=True)


def main() -> None:
    """Look, within bounds that the kernel keeps."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, content = sys.argv[1:]
    sys.stdout.write(json.dumps(observe(path, Path(content), deep=True).as_json()))


if __name__ == "__main__":
    main()
