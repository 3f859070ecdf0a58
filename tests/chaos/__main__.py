"""`make chaos`: many seeds, many faults. A seed that fails replays the same plan: `python -m tests.chaos --seed N`."""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click

from tests.chaos.checker import Verdict, judge
from tests.chaos.evidence import collect, settle
from tests.chaos.plan import make_plan
from tests.chaos.report import Run, record
from tests.chaos.rig import ordeal, running_rig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How much is done, and to how large a system."""

    kafka_nodes: int = 1
    faults: int = 30
    interval: float = 2.5
    """Mean seconds between faults."""
    stations: int = 40
    transactions: int = 3
    """Per station at least; they go on until the last fault is over."""
    pace: float = 1.0
    """Mean seconds between a station's messages."""
    patience_seconds: float = 150.0
    """After the last fault: for all that has not been acknowledged."""


async def run_seed(seed: int, folder: Path, shape: Shape) -> tuple[Verdict, Run]:
    """One ordeal with its verdict."""
    plan = make_plan(seed, shape.faults, shape.interval, shape.kafka_nodes)
    began = time.monotonic()
    async with running_rig(folder, kafka_nodes=shape.kafka_nodes) as rig:
        outcome = await ordeal(
            rig,
            plan,
            seed=seed,
            stations=shape.stations,
            transactions=shape.transactions,
            pace=shape.pace,
            patience_seconds=shape.patience_seconds,
        )
        await settle(rig.stack.database_url)
        verdict = judge(outcome, await collect(rig.stack.bootstrap_servers, rig.stack.database_url))
        print(outcome.ledger.summary())
        for line in rig.said:
            if re.search(r"ended with [1-9]|cannot|does not start", line):
                print(f"by itself: {line}")
    run = Run(
        seed=seed,
        kafka_nodes=shape.kafka_nodes,
        stations=shape.stations,
        faults=Counter(fault.what for fault in rig.done),
        acknowledged=outcome.ledger.acknowledged,
        sendings=sum(fact.sendings for fact in outcome.ledger.facts),
        take_overs=rig.take_overs,
        problems=len(verdict.problems),
        seconds=time.monotonic() - began,
    )
    return verdict, run


@click.command()
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="Run these seeds; otherwise --first and --count say which."
)
@click.option("--first", default=1, show_default=True)
@click.option("--count", default=10, show_default=True)
@click.option("--nodes", default="1", show_default=True, type=click.Choice(["1", "3"]), help="Of Kafka.")
@click.option("--faults", default=Shape.faults, show_default=True, help="Per seed.")
@click.option("--interval", default=Shape.interval, show_default=True, help="Mean seconds between faults.")
@click.option("--stations", default=Shape.stations, show_default=True)
@click.option("--transactions", default=Shape.transactions, show_default=True, help="Per station, at least.")
@click.option("--pace", default=Shape.pace, show_default=True, help="Mean seconds between a station's messages.")
@click.option("--report", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="Add to this table.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave the logs of failed seeds here.")
def main(
    *,
    seeds: tuple[int, ...],
    first: int,
    count: int,
    nodes: str,
    faults: int,
    interval: float,
    stations: int,
    transactions: int,
    pace: float,
    report: Path | None,
    keep: Path | None,
) -> None:
    """Kill, pause, stop and cut off every part of Busbar under load, and count what it kept."""
    shape = Shape(
        kafka_nodes=int(nodes),
        faults=faults,
        interval=interval,
        stations=stations,
        transactions=transactions,
        pace=pace,
    )
    failed = []
    totals: Counter[str] = Counter()
    for seed in seeds or range(first, first + count):
        print(f"== seed {seed}, {nodes} nodes", flush=True)
        with tempfile.TemporaryDirectory(prefix="busbar-chaos-") as folder:
            data = Path(folder) / "data"
            problems = 1
            try:
                verdict, run = asyncio.run(run_seed(seed, data, shape))
                problems = run.problems
            finally:
                if problems and keep is not None:
                    shutil.copytree(data / "logs", keep / f"{seed}-{nodes}", dirs_exist_ok=True)
        totals += run.faults
        print(verdict)
        if run.take_overs:
            median, longest = statistics.median(run.take_overs), max(run.take_overs)
            print(f"{len(run.take_overs)} take-overs: {median:.1f} s, {longest:.1f} s at most")
        print(f"seed {seed}: {run.total} faults in {run.seconds:.0f} s", flush=True)
        if report is not None:
            record(report, run)
        if run.problems:
            failed.append(seed)
    print("faults: " + ", ".join(f"{count} x {what}" for what, count in sorted(totals.items())))
    print(f"{sum(totals.values())} faults in all; seeds that failed: {failed or 'none'}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
