"""An HTTP API that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from click.testing import CliRunner, Result

from busbar.cli import main


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str


@dataclass
class FakeApi:
    """Answers requests one after another; the last answer again and again."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    """Status and body: bytes as they are, anything else as JSON."""
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    cut: str = ""
    """`length` or `chunked`: the response says how long it is in this way, and ends in the middle."""

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        """Run the command against this API."""
        return CliRunner().invoke(main, [*arguments, "--api-url", self.url, "--key", "k"], input=stdin)


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            place = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(
                self.command,
                place.path,
                dict(parse_qsl(place.query)),
                json.loads(body) if body else None,
                self.headers["Authorization"],
            )
            fake.asked.append(asked)
            status, content = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if fake.cut == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                raw = b"%x\r\n%s\r\n" % (len(raw), raw)
            else:
                self.send_header("Content-Length", str(len(raw) + (fake.cut == "length")))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
