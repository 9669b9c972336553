"""Write what happens in a run as JSON lines, for the progress and journal of holdfast apply."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: holdfast_events
type: aggregate
short_description: One JSON line per event, chosen fields only
description:
  - Appends to the file that the environment variable C(HOLDFAST_EVENTS) names, if it does.
  - Results are never written whole, because they may hold secrets. Of a failure its message is
    written, and of a task with C(no_log) only that it failed.
requirements: []
"""

LONGEST = 4000


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible ships no types
    """Appends events; each line is one write, so a reader never sees half of one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "holdfast.platform.holdfast_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        path = os.environ.get("HOLDFAST_EVENTS")
        self.disabled = not path
        self._out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else -1
        self._play = ""

    def _write(self, event: str, **fields: object) -> None:
        line = json.dumps(
            {"time": time.time(), "event": event, "play": self._play, **fields}, ensure_ascii=False
        )
        os.write(self._out, line.encode() + b"\n")

    def _result(self, event: str, result: Any, **fields: object) -> None:  # noqa: ANN401 - ansible's
        self._write(
            event,
            role=_role(result.task),
            task=_task(result.task),
            host=result.host.get_name(),
            changed=bool(result.result.get("changed", False)),
            **fields,
        )

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ANN401, ARG002
        """Note that a playbook runs."""
        self._write("playbook")

    def v2_playbook_on_play_start(self, play: Any) -> None:  # noqa: ANN401
        """Note the play."""
        self._play = play.get_name()
        self._write("play")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ANN401, ARG002, FBT001
        """Note that a task begins on the first of its hosts."""
        self._write("task", role=_role(task), task=_task(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:  # noqa: ANN401
        """Note that a handler begins."""
        self._write("handler", role=_role(task), task=_task(task))

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Note success, with what the module tells people (its `told`)."""
        self._result("ok", result, msg=_told(result))

    def v2_runner_on_skipped(self, result: Any) -> None:  # noqa: ANN401
        """Note a task that does not apply."""
        self._result("skipped", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Note a failure with its message; one that the play ignores is no failure."""
        self._result("ok" if ignore_errors else "failed", result, msg=_message(result))

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        """Note a host that went away."""
        self._result("unreachable", result, msg=_message(result))

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ANN401
        """Close the stream with a count for each host."""
        for host in sorted(stats.processed):
            self._write("stats", host=host, **stats.summarize(host))


def _role(task: Any) -> str:  # noqa: ANN401 - ansible's Task
    role = getattr(task, "_role", None)
    return role.get_name(include_role_fqcn=False) if role else ""


def _task(task: Any) -> str:  # noqa: ANN401 - ansible's Task
    return str(task.name or task.action)


def _told(result: Any) -> str:  # noqa: ANN401 - ansible's TaskResult
    told = result.result.get("told")
    secret = result.task.no_log or result.result.get("_ansible_no_log")
    if secret or not isinstance(told, list):
        return ""
    return "\n".join(map(str, told))[:LONGEST]


def _message(result: Any) -> str:  # noqa: ANN401 - ansible's TaskResult
    fields = result.result
    if result.task.no_log or fields.get("_ansible_no_log"):
        return "(the task handles secrets; its message is withheld)"
    parts = [
        str(fields[name]).strip() for name in ("msg", "stderr", "module_stderr") if fields.get(name)
    ]
    parts += [
        str(item["msg"]).strip()
        for item in fields.get("results") or []
        if isinstance(item, dict) and item.get("failed") and item.get("msg")
    ]
    return "\n".join(dict.fromkeys(parts))[:LONGEST]
