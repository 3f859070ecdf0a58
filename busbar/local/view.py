"""The live view of `busbar up`: a panel where there is a terminal, a line every few seconds where there is none."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from busbar.local.artifacts import Progress as ReportProgress
from busbar.local.figures import Collector, Figures
from busbar.local.runfile import RunFile

PANEL_SECONDS = 1.0
LINE_SECONDS = 5.0
_SHOWN_EVENTS = 6


def describe(run: RunFile, folder: str) -> list[tuple[str, str]]:
    """Where everything is, as label and place."""
    rows = [("stations connect to", f"{edge.url}/<station id>") for edge in run.edges]
    rows += [
        ("HTTP API", f"{run.api_url}/docs"),
        ("API key (admin)", f"{folder}/admin.key"),
        ("Kafka", run.kafka.url),
        ("PostgreSQL", f"{without_password(run.postgres.url)} (whole URL in {folder}/run.json)"),
    ]
    rows += [(f"metrics of {service.name}", service.metrics_url) for service in run.services if service.metrics_url]
    rows.append(("logs", run.logs))
    if run.fleet_path:
        rows.append(("fleet's passwords", run.fleet_path))
    return rows


def without_password(url: str) -> str:
    """A database URL that may be shown."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}" if at else url


def cells(figures: Figures, restarts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The figures as label and text, in the order in which they are shown."""
    return [
        ("stations online", f"{figures.stations_online:,}"),
        ("messages/s", _number(figures.messages_per_second)),
        ("active sessions", _or_dash(figures.active_sessions)),
        ("kWh", "-" if figures.energy_kwh is None else f"{figures.energy_kwh:,.3f}"),
        ("p99 reply", "-" if math.isnan(figures.reply_p99_ms) else f"{figures.reply_p99_ms:,.0f} ms"),
        ("lag", f"{figures.lag_records:,}"),
        ("late replies", f"{figures.late_replies:,}"),
        ("dead letters", f"{figures.dead_letters:,}"),
        ("restarts", f"{sum(restarts.values()):,}"),
    ]


def line(figures: Figures, restarts: Mapping[str, int]) -> str:
    """The figures as one line."""
    text = " | ".join(f"{label} {value}" for label, value in cells(figures, restarts))
    return text + "".join(f" | {name} does not answer" for name in figures.unreachable)


def panel(
    figures: Figures, restarts: Mapping[str, int], events: Sequence[str], width: int | None = None
) -> RenderableType:
    """The figures side by side, with the last events beneath."""
    table = Table.grid(expand=True, padding=(0, 1))
    shown = cells(figures, restarts)
    for _ in shown:
        table.add_column(justify="center")
    table.add_row(*(Text(value, style="bold") for _, value in shown))
    table.add_row(*(Text(label, style="dim") for label, _ in shown))
    notes = [Text(event, style="yellow") for event in events]
    notes += [Text(f"{name} does not answer", style="red") for name in figures.unreachable]
    subtitle = "Ctrl-C stops everything; the data stays"
    return Panel(Group(table, *notes), title="Busbar", subtitle=subtitle, width=width)


class View:
    """Tells the person at the terminal what goes on.

    Args:
        console: Where to write.
        plain: Lines, whatever the terminal can do.
    """

    def __init__(self, console: Console, *, plain: bool = False) -> None:
        self.console = console
        self.plain = plain or not console.is_terminal
        self._events: deque[str] = deque(maxlen=_SHOWN_EVENTS)
        self._live: Live | None = None

    def say(self, message: str) -> None:
        """One line: above the panel while there is none, in it afterwards."""
        if self._live is None:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            self._events.append(f"{time.strftime('%H:%M:%S')}  {message}")

    def places(self, run: RunFile, folder: str) -> None:
        """Where everything is."""
        rows = describe(run, folder)
        width = max(len(label) for label, _ in rows)
        for label, place in rows:
            self.say(f"  {label:<{width}}  {place}")

    @contextmanager
    def download(self, what: str) -> Iterator[ReportProgress]:
        """Shows how far a download is; shows nothing if there is none."""
        if self.plain:
            yield self._lines_of_download(what)
            return
        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)

    def _lines_of_download(self, what: str) -> ReportProgress:
        shown = -1

        def report(done: int, total: int) -> None:
            nonlocal shown
            if done * 4 // total > shown:
                shown = done * 4 // total
                self.say(f"downloading {what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        return report

    async def run(self, collector: Collector, restarts: Callable[[], Mapping[str, int]], stop: asyncio.Event) -> None:
        """Show figures until `stop` is set."""
        if self.plain:
            while not await _wait(stop, LINE_SECONDS):
                self.say(line(await collector.collect(), restarts()))
            return
        with Live(console=self.console, auto_refresh=False) as live:
            self._live = live
            try:
                while True:
                    figures = await collector.collect()
                    # The terminal writes ^C behind the last line: there has to be room, or the panel is shifted.
                    width = self.console.width - 3
                    live.update(panel(figures, restarts(), list(self._events), width), refresh=True)
                    if await _wait(stop, PANEL_SECONDS):
                        return
            finally:
                self._live = None


async def _wait(stop: asyncio.Event, seconds: float) -> bool:
    """Whether `stop` was set within the time."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
