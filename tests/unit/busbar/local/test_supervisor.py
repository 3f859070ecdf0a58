"""The supervisor with children of a few lines: restarts, back-off, order of stopping, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from busbar.local.errors import StackError
from busbar.local.kafka import KafkaCluster, node_settings
from busbar.local.ports import free_port
from busbar.local.process import Process
from busbar.local.supervisor import BackOff, KafkaChild, Rank, ServiceChild, Supervisor, how_it_ended

RUNS_ON = "import time; time.sleep(60)"
CRASHES = "raise SystemExit(3)"
NOTES_ITS_END = """
import signal, sys, time
def end(*_):
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + "." + sys.argv[2], "w").close()
time.sleep(60)
"""
ANSWERS = """
import http.server, sys, time
begin = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() - begin > float(sys.argv[2])
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b'{"problems": {"kafka": "no broker yet"}}')
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def child(tmp_path: Path, name: str, code: str, *arguments: str, rank: Rank = Rank.PROCESSOR) -> ServiceChild:
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    return ServiceChild(name, command, rank=rank, log_path=tmp_path / f"{name}.log", grace_seconds=5)


async def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_crashed_child_is_started_again_and_people_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    changes: list[int] = []
    supervisor = Supervisor(said.append, BackOff(first_seconds=0.05), changed=lambda: changes.append(1))
    service = child(tmp_path, "edge-0", RUNS_ON)
    await supervisor.start([service])
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.run(stop))
    first = service.process.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.restarts == {"edge-0": 1} and service.process.pid is not None)

    assert service.process.pid != first
    assert said[0].startswith("edge-0 was killed by SIGKILL: starts again in 0.05 s; see ")
    await until(lambda: said[1:] == ["edge-0 is started again (restart 1)"])
    assert changes == [1]
    stop.set()
    await watching
    await supervisor.stop()
    assert not service.process.running


async def test_a_child_that_keeps_crashing_is_started_ever_more_slowly(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append, BackOff(first_seconds=0.01, longest_seconds=0.04))
    await supervisor.start([child(tmp_path, "api", CRASHES)])
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.run(stop))
    await until(lambda: len(said) >= 8)
    stop.set()
    await watching

    waits = [line.split("again in ")[1].split(" s")[0] for line in said if "ended with 3" in line]
    assert waits[:4] == ["0.01", "0.02", "0.04", "0.04"]


def test_the_wait_doubles_up_to_its_limit() -> None:
    back_off = BackOff(first_seconds=0.5, longest_seconds=30)
    assert [back_off.seconds(n) for n in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert back_off.seconds(10_000) == 30


async def test_a_child_that_ran_for_long_is_forgiven(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append, BackOff(first_seconds=0.01, forgiven_after_seconds=0.0))
    await supervisor.start([child(tmp_path, "api", CRASHES)])
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.run(stop))
    await until(lambda: sum("ended with 3" in line for line in said) >= 3)
    stop.set()
    await watching
    assert {line.split("again in ")[1].split(" s")[0] for line in said if "ended with 3" in line} == {"0.01"}


async def test_settings_that_cannot_be_used_end_the_stack_with_the_childs_own_words(tmp_path: Path) -> None:
    refuses = """import sys; print('{"message": "cannot start: BUSBAR_X: 1 is below 2"}'); sys.exit(78)"""
    supervisor = Supervisor(print)
    await supervisor.start([child(tmp_path, "edge-0", refuses)])
    with pytest.raises(StackError, match=r"^edge-0 cannot use its settings: cannot start: BUSBAR_X: 1 is below 2$"):
        await asyncio.wait_for(supervisor.run(asyncio.Event()), 5)


async def test_children_stop_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    ranks = [Rank.PROCESSOR, Rank.API, Rank.SIMULATOR, Rank.EDGE]
    supervisor = Supervisor(print)
    children = [child(tmp_path, rank.name, NOTES_ITS_END, str(notes), rank.name, rank=rank) for rank in ranks]
    await supervisor.start(children)
    await until(lambda: all((tmp_path / f"notes.{rank.name}").exists() for rank in ranks))
    await supervisor.stop()
    assert notes.read_text().split() == ["SIMULATOR", "API", "EDGE", "PROCESSOR"]
    assert not any(one.process.running for one in children)


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(60)"
    process = Process("stubborn", [sys.executable, "-c", stubborn], log_path=tmp_path / "log")
    process.start()
    await until(ready.exists)
    begin = time.monotonic()
    assert await process.stop(grace_seconds=0.2) == -signal.SIGKILL
    assert time.monotonic() - begin < 3
    assert how_it_ended(process) == "was killed by SIGKILL"


async def test_ready_means_that_every_child_says_so(tmp_path: Path) -> None:
    supervisor = Supervisor(print)
    children = []
    for name, delay in (("a", "0"), ("b", "0.5")):
        port = free_port()
        service = child(tmp_path, name, ANSWERS, str(port), delay)
        service.health_url = f"http://127.0.0.1:{port}"
        children.append(service)
    await supervisor.start(children)
    begin = time.monotonic()
    await supervisor.wait_ready(10)
    assert time.monotonic() - begin > 0.4
    await supervisor.stop()


async def test_who_is_not_ready_is_named_with_its_reason(tmp_path: Path) -> None:
    port = free_port()
    service = child(tmp_path, "sessions-1", ANSWERS, str(port), "60")
    service.health_url = f"http://127.0.0.1:{port}"
    supervisor = Supervisor(print)
    await supervisor.start([service])
    with pytest.raises(StackError, match=r"^sessions-1 is not ready after 1.5 s: kafka: no broker yet; see "):
        await supervisor.wait_ready(1.5)
    await supervisor.stop()


def test_each_node_of_a_cluster_is_a_child_of_its_own(tmp_path: Path) -> None:
    assert KafkaChild(KafkaCluster(tmp_path)).name == "kafka"
    cluster = KafkaCluster(tmp_path, nodes=3)
    assert [KafkaChild(cluster, number).name for number in cluster.nodes] == ["kafka-1", "kafka-2", "kafka-3"]


def test_three_nodes_keep_every_record_three_times_and_need_two(tmp_path: Path) -> None:
    nodes = list(KafkaCluster(tmp_path, nodes=3, detours=["TESTED"]).nodes.values())
    settings = node_settings(nodes[1], nodes)
    assert (settings["default.replication.factor"], settings["min.insync.replicas"]) == ("3", "2")
    detour = nodes[1].detours["TESTED"]
    assert f"TESTED://127.0.0.1:{detour.port}," in settings["listeners"]
    assert settings["advertised.listeners"].endswith(f",TESTED://127.0.0.1:{detour.advertised_port}")
    assert "TESTED:PLAINTEXT" in settings["listener.security.protocol.map"]
