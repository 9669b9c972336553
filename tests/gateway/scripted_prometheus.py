"""A mock of Prometheus' HTTP API: it answers what it was told to, and notes what it was asked.

It evaluates nothing. That the queries mean what they should, the metrics role's molecule scenario
and the lab show with the real one.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from types import TracebackType


@dataclass
class ScriptedPrometheus:
    """Series by a word of the query; use as a context manager."""

    series: dict[str, list[tuple[dict[str, str], list[tuple[float, float]]]]] = field(
        default_factory=dict
    )
    asked: list[dict[str, str]] = field(default_factory=list)
    raw: bytes | None = None  # this instead of an answer

    def __enter__(self) -> Self:
        mock = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                mock.asked.append(asked)
                answer = mock.raw or json.dumps(mock.answer(asked)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: dict[str, str]) -> dict[str, Any]:
        query = asked["query"]
        if "start" in asked:
            first, last = float(asked["start"]), float(asked["end"])
        else:
            last = float(asked["time"])
            first = last - float(query.rpartition("[")[2].rstrip("s]"))
        result = [
            {
                "metric": labels,
                "values": [[at, str(value)] for at, value in points if first <= at <= last],
            }
            for word, series in self.series.items()
            if word in query
            for labels, points in series
        ]
        found = [each for each in result if each["values"]]
        return {"status": "success", "data": {"resultType": "matrix", "result": found}}
