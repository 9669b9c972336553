"""Stream the blobs that a host lacks over the inventory's own ssh connection."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.platform.plugins.module_utils import blob_receiver


class ActionModule(ActionBase):  # type: ignore[misc] # ansible ships no types
    """Run on the operator's machine, where the bundle is."""

    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask, stream, confirm."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        bundle = Path(self._task.args["bundle"])
        manifest = (bundle / "manifest.json").read_bytes()
        digest = hashlib.sha256(manifest).hexdigest()
        if digest != self._task.args["digest"]:
            raise AnsibleActionFail(
                f"{bundle}/manifest.json has digest {digest}; the plan was made for "
                f"{self._task.args['digest']}. Make the plan anew."
            )
        sizes = {
            artifact["digest"].removeprefix("sha256:"): artifact["size"]
            for artifact in json.loads(manifest)["artifacts"]
        }
        # the manifest travels as one more blob, and last: with it the copy is whole
        sizes[digest] = len(manifest)
        with self._start() as child:
            missing = self._ask(child, sizes)
            if missing and not self._task.check_mode:
                self._stream(child, bundle, missing)
            # closing the stream early is how a check run says that nothing follows
            child.stdin.close()
            said = child.stderr.read().decode(errors="replace")
            code = child.wait()
        if code and not self._task.check_mode:
            raise AnsibleActionFail(f"the host refused the bundle's blobs: {said.strip()[-800:]}")
        total = sum(sizes[name] for name in missing)
        return {
            **result,
            "changed": bool(missing),
            "pushed": len(missing),
            "bytes": total,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(blob_receiver.__file__).read_text(encoding="utf-8")
        remote = shlex.join(["python3", "-c", program, self._task.args["root"]])
        if self._task.become:
            remote = f"sudo -n -- {remote}"
        connection = self._connection
        if connection.transport == "local":
            command: list[Any] = ["sh", "-c", remote]
        else:
            ssh = connection.get_option("ssh_executable")
            # the connection's own builder: keys, known hosts and ControlPersist are the inventory's
            command = connection._build_command(ssh, "ssh", connection.get_option("host"), remote)  # noqa: SLF001 - no public way
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def _ask(self, child: subprocess.Popen[bytes], sizes: dict[str, int]) -> list[str]:
        stdin, stdout = _pipe(child.stdin), _pipe(child.stdout)
        try:
            stdin.write(json.dumps(sizes).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
            return list(json.loads(line))
        except (BrokenPipeError, ValueError) as error:
            child.kill()
            said = _pipe(child.stderr).read().decode(errors="replace")
            raise AnsibleActionFail(
                f"the host did not say which blobs it lacks: {said.strip()[-800:]}"
            ) from error

    def _stream(self, child: subprocess.Popen[bytes], bundle: Path, missing: list[str]) -> None:
        try:
            with tarfile.open(fileobj=_pipe(child.stdin), mode="w|", bufsize=1 << 20) as tar:
                for name in missing:
                    path = bundle / "blobs" / "sha256" / name[:2] / name
                    if name == self._task.args["digest"]:
                        path = bundle / "manifest.json"
                    entry = tarfile.TarInfo(name)
                    entry.size = path.stat().st_size
                    with path.open("rb") as source:
                        tar.addfile(entry, source)
            _pipe(child.stdin).flush()
            _pipe(child.stdout).readline()
        except BrokenPipeError:
            pass  # the far side said why on its standard error; the caller reads it


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AnsibleActionFail("ssh was started without its pipes")
    return stream
