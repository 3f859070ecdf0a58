"""`busbar up` as a person starts it: ready, in use, stopped, started again, and gone with whoever kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from busbar.local import clean
from busbar.local.postgres_files import PostgresFiles, prepare
from busbar.local.runfile import RunFile

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240.0
"""Ready takes under 15 s on an idle machine; a build machine may be anything but idle."""


class Up:
    """A running `busbar up --plain`."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.out = folder.parent / f"{folder.name}.out"
        command = [sys.executable, "-m", "busbar", "up", "--plain", "--data", str(folder), *options]
        inherited = {name: value for name, value in os.environ.items() if name not in SERVERS}
        with open(self.out, "w") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=inherited | (environment or {}), stdout=out, stderr=out
            )

    @property
    def text(self) -> str:
        return self.out.read_text()

    def until(self, words: str, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None, f"it ended by itself:\n{self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in:\n{self.text}"
            time.sleep(0.1)

    def run_file(self) -> RunFile:
        return RunFile.read(self.folder / "run.json")

    def processes(self) -> list[psutil.Process]:
        """Every process that it has started, theirs included."""
        return psutil.Process(self.process.pid).children(recursive=True)


SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")


@contextmanager
def up(folder: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Up]:
    running = Up(folder, *options, environment=environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that are still alive after the time."""
    return psutil.wait_procs(processes, timeout=seconds)[1]


def use(run: RunFile) -> None:
    """Everything answers, and the administrator's key opens the API."""
    for service in run.services:
        if service.metrics_url is None:
            continue
        base = service.metrics_url.removesuffix("/metrics")
        for path in ("/livez", "/readyz", "/metrics"):
            answer = httpx.get(base + path, timeout=10)
            assert answer.status_code == 200, f"{service.name}{path}: {answer.text}"
    assert httpx.get(f"{run.api_url}/v1/stations", timeout=10).status_code == 401
    answer = httpx.get(f"{run.api_url}/v1/stations", headers=bearer(run), timeout=10)
    assert answer.status_code == 200, answer.text


def bearer(run: RunFile) -> dict[str, str]:
    return {"Authorization": f"Bearer {run.admin_key}"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_starts_serves_stops_and_keeps_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with up(folder, "--edges", "2", "--fleet", "4", "--speed", "20") as first:
        first.until("ready after")
        run = first.run_file()
        assert [service.name for service in run.services] == [
            "edge-0", "edge-1", "router-0", "sessions-0", "stations-0", "billing-0", "api-0", "simulator"
        ]  # fmt: skip
        use(run)
        first.until("stations online 4", 60)
        created = httpx.post(
            f"{run.api_url}/v1/stations", headers=bearer(run), json={"station_id": "KEPT-1"}, timeout=10
        )
        assert created.status_code == 201, created.text

        second = subprocess.run(
            [sys.executable, "-m", "busbar", "up", "--plain", "--data", str(folder)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert f"busbar already runs in {folder} (process {first.process.pid})" in second.stderr
        assert "Traceback" not in second.stderr
        assert first.run_file() == run, "the second one has touched the folder of the first"

        started = first.processes()
        assert len(started) >= 10  # Kafka, PostgreSQL with its workers, seven services and the fleet
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(90) == 0, first.text
        assert "the data stays in" in first.text
        assert "Traceback" not in first.text
        assert gone(started, 0) == []
        assert not (folder / "run.json").exists()

    with up(folder, "--no-fleet") as again:
        again.until("ready after")
        run = again.run_file()
        assert run.fleet_path is None
        kept = httpx.get(f"{run.api_url}/v1/stations/KEPT-1", headers=bearer(run), timeout=10)
        assert kept.status_code == 200, kept.text
        started = again.processes()
        again.process.kill()
        again.process.wait()
        assert gone(started, 20) == [], "a SIGKILL of `busbar up` left processes behind"

    files: PostgresFiles = prepare(folder / "postgres")
    assert clean.main([str(folder)]) == 0
    assert not files.data.exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_it_uses_the_servers_that_it_is_pointed_to(tmp_path: Path, topics: str, postgres_url: str) -> None:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": topics, "DATABASE_URL": postgres_url}
    with up(tmp_path / "stack", "--no-fleet", environment=environment) as running:
        running.until("ready after")
        run = running.run_file()
        assert (run.kafka.url, run.kafka.embedded, run.kafka.pids) == (topics, False, ())
        assert (run.postgres.url, run.postgres.embedded, run.postgres.pids) == (postgres_url, False, ())
        use(run)
        assert not (tmp_path / "stack" / "kafka").exists()
        assert not (tmp_path / "stack" / "postgres").exists()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0, running.text


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"},
            "Error: KAFKA_BOOTSTRAP_SERVERS: no broker answers at 127.0.0.1:1",
        ),
        (
            {"DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"},
            "Error: DATABASE_URL: 127.0.0.1:1/x cannot be reached",
        ),
    ],
)
def test_servers_that_do_not_answer_are_named_in_one_line(
    tmp_path: Path, environment: dict[str, str], words: str
) -> None:
    with up(tmp_path / "stack", "--no-fleet", environment=environment) as running:
        assert running.process.wait(60) == 1
    assert not (tmp_path / "stack" / "kafka").exists(), "nothing is started in vain"
    lines = running.text.splitlines()
    assert words in lines[-1]
    assert "Traceback" not in running.text
    assert "s3cret" not in running.text
