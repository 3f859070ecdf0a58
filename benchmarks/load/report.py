"""What was measured, as rows, as a table in Markdown, and as a section of a page that is written anew."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from busbar.local.artifacts import pinned_kafka
from busbar.local.kafka import RUN

ROLES = ("edge", "sessions", "stations", "router", "api", "others", "postgres", "kafka", "client")
"""The columns of CPU; a service that is not named is one of the others."""
NOTHING = (math.nan, math.nan, math.nan)
LEVELS = "p50 / p95 / p99"


@dataclass(slots=True)
class Row:
    """One line of the table."""

    name: str
    """The scenario, as `--scenario` takes it."""
    title: str
    stations: int
    rate: float = math.nan
    """Messages answered a second."""
    quantiles_ms: tuple[float, float, float] = NOTHING
    cpu_us: dict[str, float] = field(default_factory=dict)
    """CPU microseconds per message, by role."""
    busy: float = math.nan
    """The share of the machine that was busy."""
    loop_delay_ms: tuple[float, float] = (math.nan, math.nan)
    """How late the edge's event loop ran its timers: p99, and the bound that none exceeded."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What must not be: wrong or missing answers."""

    @property
    def cpu_sum(self) -> float:
        """CPU microseconds per message of everything but the client."""
        return sum(value for role, value in self.cpu_us.items() if role != "client")


def quantiles(latencies: Iterable[float]) -> tuple[float, float, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        return (math.nan,) * 3
    p50, p95, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.95, 0.99))
    return p50, p95, p99


def by_role(cpu: dict[str, float]) -> dict[str, float]:
    """The columns: services that have none of their own are added up."""
    found = dict.fromkeys(ROLES, 0.0)
    for role, value in cpu.items():
        found[role if role in found else "others"] += value
    return found


def settings() -> list[str]:
    """Versions and the machine, for the head of the table."""
    packages = ("aiokafka", "asyncpg", "fastavro", "jsonschema-rs", "orjson", "uvloop", "websockets")
    return [
        f"{platform.machine()}, {os.cpu_count()} cores ({_processor()}), Linux {platform.release()},"
        f" Python {platform.python_version()}",
        ", ".join(f"{name} {version(name)}" for name in packages),
        f"Kafka {pinned_kafka().version}, one node, acks=all, idempotent producer, {RUN}; PostgreSQL 18 with fsync and"
        " synchronous commits; all of it and the load client on this machine",
    ]


def _processor() -> str:
    try:
        found = re.search(r"(?m)^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or "unknown"


HEAD = (
    "scenario",
    "stations",
    "a second",
    f"{LEVELS} ms",
    "us per message: " + " / ".join(ROLES),
    "sum but client",
    "machine busy",
    "edge's loop late, p99 / worst ms",
)


def line(row: Row) -> str:
    """A row as Markdown."""
    roles = by_role(row.cpu_us)
    title = "; ".join([row.title, *row.notes, *(f"**{problem}**" for problem in row.problems)])
    cells = (
        title.replace("|", "\\|"),
        f"{row.stations:,}",
        _text(row.rate, ",.0f"),
        _several(row.quantiles_ms, ",.1f"),
        _several([roles[role] for role in ROLES], ".0f") if row.cpu_us else "",
        f"{row.cpu_sum:,.0f}" if row.cpu_us else "",
        _text(row.busy, ".0%"),
        _several(row.loop_delay_ms, ".0f", worst="≤ "),
    )
    return "| " + " | ".join(cells) + " |"


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    return "\n".join(["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *map(line, rows)])


def _text(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _several(values: Sequence[float], form: str, worst: str = "") -> str:
    if all(map(math.isnan, values)):
        return ""
    texts = [_text(value, form) or "-" for value in values]
    if worst:
        texts[-1] = "> 2,500" if math.isinf(values[-1]) else worst + texts[-1]
    return " / ".join(texts)


def section(rows: Sequence[Row], how: str, plots: Sequence[str]) -> str:
    """Everything that a run says."""
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}. {how}", "", *(f"- {text}" for text in settings()), ""]
    return "\n".join([*lines, table(rows), "", *plots]).rstrip() + "\n"


def replace(path: Path, mark: str, text: str) -> None:
    """Write the part of a page between the two comments of a mark anew, or append it."""
    begin, end = f"<!-- {mark}: begin, written by make bench -->", f"<!-- {mark}: end -->"
    page = path.read_text() if path.exists() else ""
    part = f"{begin}\n\n{text}\n{end}"
    head, found, rest = page.partition(begin)
    if found:
        _, closed, tail = rest.partition(end)
        if not closed:
            raise ValueError(f"{path}: there is no {end!r} after {begin!r}")
        page = head + part + tail
    else:
        page = page.rstrip() + "\n\n" * bool(page) + part + "\n"
    path.write_text(page)
