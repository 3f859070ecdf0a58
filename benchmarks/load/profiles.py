"""Where processes spend their time under a scenario's load: py-spy's samples of each, by group of functions.

A sample belongs to its innermost frame that says something: `write` of libc is a system call, a helper of asyncio that
runs below an encoder is the encoder's.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil

from benchmarks.load.scenarios import Options, Scenario
from benchmarks.load.system import System
from busbar.compiled.build import MODULES

SECONDS = 10
"""Each process is watched for so long, one after the other."""
SAMPLES_PER_SECOND = 100
BUSY_SHARE = 0.05
"""Of a core: what uses less is not looked at."""
LOAD_SECONDS = 60.0
"""In which the load has to be on."""
_SMALL_SHARE = 0.01

_GROUPS = [
    (group, re.compile(pattern))
    for group, pattern in (
        ("system call: write", r"^(write|writev|send|sendto|sendmsg) "),
        ("system call: read", r"^(read|readv|recv|recvfrom|recvmsg) "),
        ("epoll", r"^epoll_"),
        ("garbage collection", r"^gc_collect"),
        ("Avro", r"\((<avro |busbar/avro/)"),
        ("pricing", r"\(busbar/pricing/"),
        ("JSON", r"\(orjson/"),
        ("JSON schema", r"\(jsonschema_rs/|busbar/ocpp/validation\.py"),
        (
            "client of PostgreSQL",
            r"\(asyncpg/|\((protocol|pgproto|recordobj)\.c|busbar/(stream/leases_postgres|pg_arrays)\.py",
        ),
        ("client of Kafka", r"\(aiokafka/|\(cramjam/|\(default_records\.c|busbar/stream/kafka"),
        ("WebSocket and OCPP-J frames", r"\(websockets/|services/edge/(protocol|wire)\.py|busbar/ocpp/"),
        ("metrics and health", r"\(prometheus_client/|\(aiohttp/"),
        ("batches, leases and replies", r"\(busbar/stream/"),
        ("event loop", r"\((uvloop/|asyncio/|_asyncio|loop\.c|core\.c|linux\.c|stream\.c|loop-watcher\.c)"),
    )
]
_SERVICE = re.compile(r"\((services/\w+/\w+\.py)")
_NAME = re.compile(r"^(.+?) \(")
_COMPILED = re.compile(r"^CPyDef_(\w+?)(?:_gen_____mypyc_generator_helper__)? \(")
_CODEC = re.compile(r"^busbar_codec_(\w+)_[0-9a-f]{24}___(\w+)$")


def group_of(frames: Iterable[str]) -> tuple[str, str]:
    """Where a sample belongs, and the function that says so; frames from the outermost to the innermost."""
    for frame in map(readable, reversed(list(frames))):
        for group, pattern in _GROUPS:
            if pattern.search(frame):
                return group, _function(frame)
        if found := _SERVICE.search(frame):
            return found[1], _function(frame)
    return "other", ""


@cache
def readable(frame: str) -> str:
    """The frame of a compiled function as that of its source; any other as it is."""
    compiled = _COMPILED.match(frame)
    if compiled is None:
        return frame
    if codec := _CODEC.match(compiled[1]):
        return f"{codec[2]} (<avro {codec[1]}>)"
    # mypyc puts as much of the module's name before the function's as tells it from the others.
    parts = compiled[1].split("___")
    for count in range(len(parts) - 1, 0, -1):
        end = ".".join(parts[:count])
        modules = [module for module in MODULES if f".{module}".endswith(f".{end}")]
        if len(modules) == 1:
            return f"{'.'.join(parts[count:])} ({modules[0].replace('.', '/')}.py)"
    return frame


def _function(frame: str) -> str:
    found = _NAME.match(frame)
    return found[1] if found and not found[1].startswith("0x") else ""


def summarize(name: str, stacks: str) -> str:
    """A table of one process's samples, as py-spy writes them: `frame;frame;... count` a line."""
    groups: Counter[str] = Counter()
    functions: dict[str, Counter[str]] = defaultdict(Counter)
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        group, function = group_of(stack.split(";"))
        groups[group] += int(samples)
        functions[group][function] += int(samples)
    total = max(1, groups.total())
    shown = [(group, count) for group, count in groups.most_common() if count >= total * _SMALL_SHARE]
    lines = [
        f"**{name}**, {total / (SECONDS * SAMPLES_PER_SECOND):.0%} of a core",
        "",
        "| share | where | most of it in |",
        "|---|---|---|",
    ]
    for group, count in shown:
        most = ", ".join(f"`{function}`" for function, _ in functions[group].most_common(3) if function)
        lines.append(f"| {count / total:.0%} | {group} | {most} |")
    rest = total - sum(count for _, count in shown)
    if rest > 0:
        lines.append(f"| {rest / total:.0%} | what is below 1 % | |")
    return "\n".join(lines) + "\n"


async def profile(system: System, scenario: Scenario, options: Options) -> str:
    """Put the load on, and watch every Python process that is busy under it.

    Raises:
        RuntimeError: py-spy cannot watch a process, or the load does not come on.
    """
    count = len(system.run.services)
    load = asyncio.create_task(scenario.run(system, replace(options, seconds=LOAD_SECONDS + count * SECONDS * 2)))
    try:
        tables = [summarize(name, await _watch(pid)) for name, pid in await _busy(system, load)]
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    return "\n".join(tables)


async def _busy(system: System, load: asyncio.Task[object]) -> list[tuple[str, int]]:
    """Wait until some process is, and name all that are."""
    processes = [(entry.name, psutil.Process(entry.pid)) for entry in system.run.services if entry.pid is not None]
    seconds_under_load = 0
    for _ in range(int(LOAD_SECONDS)):
        if load.done():
            load.result()
        before = [sum(process.cpu_times()[:2]) for _, process in processes]
        await asyncio.sleep(1)
        shares = [sum(process.cpu_times()[:2]) - spent for (_, process), spent in zip(processes, before, strict=True)]
        seconds_under_load = seconds_under_load + 1 if max(shares) > 4 * BUSY_SHARE else 0
        if seconds_under_load >= 3:  # by then all stations are connected
            ranked = sorted(zip(shares, processes, strict=True), key=lambda each: -each[0])
            return [(name, process.pid) for share, (name, process) in ranked if share > BUSY_SHARE]
    raise RuntimeError("no process is busy after a minute")


async def _watch(pid: int) -> str:
    with _temporary() as path:
        arguments = ["record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(SAMPLES_PER_SECOND)]
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("py-spy")), *arguments, "--native", "--format", "raw"),
            *("--output", str(path)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, told = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"py-spy cannot watch process {pid}: {told.decode().strip()}")
        return path.read_text()


@contextmanager
def _temporary() -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix="busbar-profile-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        os.unlink(name)
