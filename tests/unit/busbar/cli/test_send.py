"""`busbar send` against an API of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from busbar.cli import main


@dataclass
class FakeApi:
    """Answers every request with the same document."""

    status: int = 200
    document: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake.requests.append((self.path, dict(self.headers), body))
            answer = json.dumps(fake.document).encode()
            self.send_response(fake.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def send(api: FakeApi, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["send", *arguments, "--api-url", api.url, "--key", "k"], input=stdin)


def outcome(name: str, **more: Any) -> dict[str, Any]:
    return {"command_id": "id-1", "station_id": "CS/1", "action": "Reset", "outcome": name, **more}


def test_the_answer_is_shown_and_the_request_is_what_the_api_takes(api: FakeApi) -> None:
    api.document = outcome("answered", answer={"status": "Accepted"})
    result = send(api, "CS/1", "Reset", '{"type": "Soft"}', "--wait", "5", "--park", "--idempotency-key", "same")
    assert result.exit_code == 0, result.output
    assert "CS/1 Reset: answered" in result.output
    assert '"status": "Accepted"' in result.output
    ((path, headers, body),) = api.requests
    assert path == "/v1/stations/CS%2F1/commands/Reset?wait=5.0&priority=0&park=true"
    assert (headers["Authorization"], headers["Idempotency-Key"]) == ("Bearer k", "same")
    assert json.loads(body) == {"type": "Soft"}


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [(200, "error", 1), (409, "offline", 3), (502, "disconnected", 3), (504, "timeout", 3), (202, "pending", 4)],
)
def test_every_other_outcome_has_its_exit_code_and_says_why(api: FakeApi, status: int, name: str, code: int) -> None:
    api.status = status
    api.document = outcome(name, error={"code": "NotSupported", "description": "no such thing"})
    result = send(api, "CS/1", "Reset")
    assert result.exit_code == code
    assert f"Reset: {name}" in result.output
    assert "Traceback" not in result.output


def test_a_refused_request_is_one_line_with_what_is_wrong(api: FakeApi) -> None:
    api.status = 422
    api.document = {
        "title": "The payload does not fit the action",
        "errors": [{"path": "$.type", "message": "is none of Hard, Soft"}],
    }
    result = send(api, "CS-1", "Reset", '{"type": "x"}')
    assert result.exit_code == 1
    assert result.output == "Error: The payload does not fit the action: $.type is none of Hard, Soft\n"


def test_without_a_key_the_remedy_is_named(api: FakeApi) -> None:
    api.status, api.document = 401, {"title": "No such key"}
    assert "BUSBAR_API_KEY" in send(api, "CS-1", "Reset").output


def test_an_api_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(main, ["send", "CS-1", "Reset", "--api-url", "http://127.0.0.1:9", "--key", "k"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the API at http://127.0.0.1:9 does not answer")


def test_the_payload_may_come_from_a_file_or_from_standard_input(api: FakeApi, tmp_path: Path) -> None:
    api.document = outcome("answered", answer={})
    path = tmp_path / "payload.json"
    path.write_text('{"from": "file"}')
    send(api, "CS-1", "Reset", f"@{path}")
    send(api, "CS-1", "Reset", "-", stdin='{"from": "stdin"}')
    assert [json.loads(body) for _, _, body in api.requests] == [{"from": "file"}, {"from": "stdin"}]


@pytest.mark.parametrize("payload", ["{", "[1]", "@/no/such/file"])
def test_a_payload_that_is_no_json_object_is_refused_before_anything_is_sent(api: FakeApi, payload: str) -> None:
    result = send(api, "CS-1", "Reset", payload)
    assert result.exit_code == 2
    assert api.requests == []


def test_without_a_stack_the_remedy_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["send", "CS-1", "Reset", "--run-file", str(tmp_path / "run.json")])
    assert result.exit_code == 1
    assert "busbar up" in result.output
