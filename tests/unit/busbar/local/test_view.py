"""What a person reads at the terminal."""

from __future__ import annotations

import asyncio
import io
import math
from dataclasses import replace
from typing import cast

import pytest
from rich.console import Console

from busbar.local import view as module
from busbar.local.figures import Collector, Figures
from busbar.local.runfile import Edge, RunFile, Server, ServiceEntry
from busbar.local.view import View, line, panel, without_password

FIGURES = Figures(
    stations_online=50,
    messages_per_second=1234.5,
    active_sessions=17,
    energy_kwh=60441.935575,
    reply_p99_ms=12.4,
    lag_records=3,
    dead_letters=0,
    late_replies=1,
    unreachable=(),
)
RUN = RunFile(
    busbar="0.1.0",
    pid=1,
    started_at="2026-01-01T00:00:00+00:00",
    logs="/x/logs",
    kafka=Server("127.0.0.1:9092", True, (2,)),
    postgres=Server("postgresql://busbar:secret@127.0.0.1:5432/busbar", True, (3,)),
    api_url="http://127.0.0.1:9410",
    admin_key_path="/x/admin.key",
    fleet_path="/x/fleet.json",
    edges=(Edge("edge-0", "ws://127.0.0.1:9310/ocpp", 0), Edge("edge-1", "ws://127.0.0.1:9312/ocpp", 1)),
    services=(ServiceEntry("edge-0", "edge", 4, "http://127.0.0.1:9311/metrics", "/x/logs/edge-0.log"),),
)


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=140, color_system=None), out


def test_the_line_has_every_figure() -> None:
    assert line(FIGURES, {"edge-0": 1, "api-0": 1}) == (
        "stations online 50 | messages/s 1,234 | active sessions 17 | kWh 60,441.936 | p99 reply 12 ms | lag 3"
        " | late replies 1 | dead letters 0 | restarts 2"
    )


def test_what_is_not_known_is_a_dash() -> None:
    unknown = replace(
        FIGURES, messages_per_second=math.nan, reply_p99_ms=math.nan, active_sessions=None, energy_kwh=None
    )
    assert "messages/s - | active sessions - | kWh - | p99 reply - |" in line(unknown, {})


def test_who_does_not_answer_is_named() -> None:
    assert line(replace(FIGURES, unreachable=("router-0",)), {}).endswith(" | router-0 does not answer")


def test_the_panel_has_every_figure_and_the_last_events() -> None:
    show, out = console(terminal=True)
    show.print(panel(replace(FIGURES, unreachable=("api-0",)), {}, ["12:00:00  edge-0 was killed by SIGKILL"]))
    text = out.getvalue()
    for part in ("50", "1,234", "60,441.936", "12 ms", "stations online", "edge-0 was killed", "api-0 does not answer"):
        assert part in text


def test_the_places_show_no_password() -> None:
    show, out = console(terminal=False)
    View(show, plain=True).places(RUN, ".busbar")
    text = out.getvalue()
    assert "secret" not in text
    assert "ws://127.0.0.1:9310/ocpp/<station id>" in text
    assert "ws://127.0.0.1:9312/ocpp/<station id>" in text
    assert "http://127.0.0.1:9410/docs" in text
    assert "http://127.0.0.1:9311/metrics" in text
    assert "/x/logs" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://u:p%40@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_lines_are_not_wrapped_and_not_taken_for_markup() -> None:
    show, out = console(terminal=False)
    View(show, plain=True).say("x" * 300 + " [red] /a/b")
    assert out.getvalue() == "x" * 300 + " [red] /a/b\n"


def test_a_download_is_told_in_quarters_where_there_is_no_terminal() -> None:
    show, out = console(terminal=False)
    with View(show).download("the broker") as report:
        for done in range(101):
            report(done * 1_000_000, 100_000_000)
    assert out.getvalue().splitlines() == [f"downloading the broker: {done} of 100 MB" for done in (0, 25, 50, 75, 100)]


class Steady:
    """A collector that always finds the same."""

    async def collect(self) -> Figures:
        return FIGURES


@pytest.mark.parametrize("terminal", [True, False])
async def test_the_view_runs_until_it_is_stopped(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(module, "PANEL_SECONDS", 0.01)
    show, out = console(terminal=terminal)
    shown = View(show)
    stop = asyncio.Event()
    running = asyncio.create_task(shown.run(cast(Collector, Steady()), lambda: {"edge-0": 0}, stop))
    await asyncio.sleep(0.1)
    shown.say("router-0 ended with 1")
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait_for(running, 2)
    assert "60,441.936" in out.getvalue()
    assert "router-0 ended with 1" in out.getvalue()
