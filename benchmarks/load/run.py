"""`make bench`: starts the whole system on this machine, drives it, and says what it did and what it cost.

Every figure is of the real thing: Kafka with `acks=all`, PostgreSQL with fsync, every reply checked by its id.
CPU is counted per process from the kernel's own accounts; the client's share is reported beside the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.load import plots, profiles, report
from benchmarks.load.report import Row
from benchmarks.load.scenarios import QUICK, SCENARIOS, Options, Scenario, quick, warm_up
from benchmarks.load.system import Shape, System, stack
from busbar.local.errors import StackError
from busbar.local.stack import raise_open_files

LIMIT_SECONDS = 240.0
"""A scenario that takes longer hangs."""

T = TypeVar("T")


@dataclass(slots=True)
class Bench:
    """One run: what to measure, and what came of it."""

    scenarios: Sequence[Scenario]
    options: Options
    warm_stack_seconds: float
    rows: list[Row] = field(default_factory=list)

    async def on(self, system: System) -> None:
        """Measure everything on a system that runs."""
        await system.prepare(0)
        await warm_up(system, self.options, self.warm_stack_seconds)
        for scenario in self.scenarios:
            await self._measure(scenario, system)

    async def on_stacks(self, shape: Shape | None) -> None:
        """Start a system for the scenarios of each shape. After one that failed, the next gets a system of its own."""
        waiting = list(self.scenarios)
        while waiting:
            needed = shape or waiting[0].shape
            mine = [scenario for scenario in waiting if shape or scenario.shape == needed]
            say(f"starting the system: {needed}")
            done: list[Scenario] = []
            begun = False
            try:
                async with stack(needed) as system:
                    begun = True
                    await system.prepare(0)
                    await warm_up(system, self.options, self.warm_stack_seconds)
                    for scenario in mine:
                        done.append(scenario)
                        if not await self._measure(scenario, system):
                            break
            except Exception as error:
                # A system that does not start at all will not do so for the next scenario either.
                failed = mine if not begun else done[-1:] or mine[:1]
                done += failed
                for scenario in failed:
                    self._failed(scenario, error)
            waiting = [scenario for scenario in waiting if scenario not in done]

    async def _measure(self, scenario: Scenario, system: System) -> bool:
        """Measure one; whether that worked."""
        try:
            async with asyncio.timeout(LIMIT_SECONDS * max(1.0, self.options.pairs / 10)):
                rows = await scenario.run(system, self.options)
        except Exception as error:
            self._failed(scenario, error)
            return False
        self._add(rows)
        return True

    def _failed(self, scenario: Scenario, error: Exception) -> None:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        self._add([Row(scenario.name, scenario.about, 0, problems=[f"FAILED: {why}"])])

    def _add(self, rows: list[Row]) -> None:
        self.rows += rows
        for row in rows:
            print(report.line(row), flush=True)


def say(text: str) -> None:
    """Tell the person at the terminal how it goes on."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


async def profile(
    scenario: Scenario, options: Options, warm_stack_seconds: float, shape: Shape | None, run_file: Path | None
) -> str:
    """Where the time goes under a scenario's load, as Markdown."""
    async with contextlib.AsyncExitStack() as exits:
        if run_file is not None:
            system = System.of(run_file)
        else:
            system = await exits.enter_async_context(stack(shape or scenario.shape))
        await system.prepare(0)
        await warm_up(system, options, warm_stack_seconds)
        return await profiles.profile(system, scenario, options)


def run_until_told(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; SIGTERM ends it as Ctrl-C does, so that nothing is left running."""

    async def run() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit("stopped") from None
    except (StackError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


@click.command(epilog="Scenarios: " + "; ".join(f"{name}: {each.about}" for name, each in SCENARIOS.items()) + ".")
@click.option("--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="All unless given.")
@click.option("--stations", default=1000, show_default=True, help="Stations of most scenarios.")
@click.option("--seconds", default=8.0, show_default=True, help="Measured time of each.")
@click.option("--warm", default=3.0, show_default=True, help="Warm-up before each, with the same load.")
@click.option("--warm-stack", default=25.0, show_default=True, help="Warm-up of a system that was just started.")
@click.option(
    "--pairs", default=10, show_default=True, type=click.IntRange(min=2), help="Slices with billing, as many without."
)
@click.option("--edges", type=int, help="Edge processes, for all scenarios; else what each needs.")
@click.option("--sessions", type=int, help="Sessions processes, for all scenarios; else what each needs.")
@click.option("--quick", "is_quick", is_flag=True, help=f"{', '.join(QUICK)} unless others are named; short.")
@click.option("--run-file", type=click.Path(exists=True, path_type=Path), help="Measure a system that runs already.")
@click.option(
    "--profile", "profiled", type=click.Choice(list(SCENARIOS)), help="Say where the time goes under this load."
)
@click.option("--write", type=click.Path(path_type=Path), help="Write the table and plots into this Markdown file.")
def main(
    names: tuple[str, ...],
    stations: int,
    seconds: float,
    warm: float,
    warm_stack: float,
    pairs: int,
    edges: int | None,
    sessions: int | None,
    is_quick: bool,
    run_file: Path | None,
    profiled: str | None,
    write: Path | None,
) -> None:
    """Measure Busbar on this machine."""
    raise_open_files()
    options = Options(stations=stations, seconds=seconds, warm=warm, pairs=pairs)
    if is_quick:
        names, options, warm_stack = names or QUICK, quick(options), min(warm_stack, 12.0)
    shape = Shape(edges or 1, sessions or 1) if edges or sessions else None
    if profiled is not None:
        table = run_until_told(profile(SCENARIOS[profiled], options, warm_stack, shape, run_file))
        print(table)
        if write is not None:
            report.replace(write, f"profile of {profiled}", table)
        return
    bench = Bench([SCENARIOS[name] for name in names or SCENARIOS], options, warm_stack)
    print("\n".join(f"- {line}" for line in report.settings()), report.table([]), sep="\n\n", flush=True)

    run_until_told(bench.on(System.of(run_file)) if run_file else bench.on_stacks(shape))
    if write is not None:
        how = f"Each scenario: {options.warm:g} s of warm-up, {options.seconds:g} s measured, on a warm system."
        pictures = plots.write(bench.rows, write.with_suffix(""))
        report.replace(write, "figures", report.section(bench.rows, how, pictures))
        say(f"wrote {write}")
    if bad := [row.title for row in bench.rows if row.problems]:
        raise SystemExit(f"wrong: {'; '.join(bad)}")


if __name__ == "__main__":
    main()
