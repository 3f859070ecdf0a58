"""`make chaos`: many seeds, many faults. A seed that fails replays the same plan: `python -m tests.chaos --seed N`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.chaos.checker import Verdict, check, settle
from tests.chaos.plan import make_plan
from tests.chaos.rig import ordeal, running_rig


async def run_seed(
    seed: int, folder: Path, *, faults: int, stations: int, transactions: int, pace: float, interval: float
) -> tuple[Verdict, Counter[str]]:
    """One ordeal with its verdict, and how often which fault happened to whom."""
    plan = make_plan(seed, faults, interval)
    async with running_rig(folder) as rig:
        deadline = plan[-1].at_seconds + 180 if plan else 180
        ledger = await ordeal(
            rig, plan, seed=seed, stations=stations, transactions=transactions, pace=pace, deadline_seconds=deadline
        )
        await settle(rig.stack.database_url, rig.stack.bootstrap_servers)
        verdict = await check(ledger, rig.stack.bootstrap_servers, rig.stack.database_url)
        print(ledger.summary())
        print(f"{len(rig.said)} lines from the supervisor")
        return verdict, Counter(f"{fault.kind} {fault.role}" for fault in rig.done)


@click.command()
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="Run these seeds; otherwise --first and --count say which."
)
@click.option("--first", default=1, show_default=True)
@click.option("--count", default=10, show_default=True)
@click.option("--faults", default=30, show_default=True, help="Per seed.")
@click.option("--interval", default=2.5, show_default=True, help="Mean seconds between faults.")
@click.option("--stations", default=40, show_default=True)
@click.option("--transactions", default=8, show_default=True, help="Per station.")
@click.option("--pace", default=1.0, show_default=True, help="Mean seconds between a station's messages.")
def main(
    seeds: tuple[int, ...],
    first: int,
    count: int,
    faults: int,
    interval: float,
    stations: int,
    transactions: int,
    pace: float,
) -> None:
    """Kill, pause and stop every part of Busbar under load, and count what it kept."""
    failed = []
    totals: Counter[str] = Counter()
    for seed in seeds or range(first, first + count):
        began = time.monotonic()
        print(f"== seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="busbar-chaos-") as folder:
            verdict, done = asyncio.run(
                run_seed(
                    seed,
                    Path(folder) / "data",
                    faults=faults,
                    stations=stations,
                    transactions=transactions,
                    pace=pace,
                    interval=interval,
                )
            )
        totals += done
        print(f"{verdict}\nseed {seed}: {sum(done.values())} faults in {time.monotonic() - began:.0f} s", flush=True)
        if verdict.problems:
            failed.append(seed)
    print("faults: " + ", ".join(f"{count} x {what}" for what, count in sorted(totals.items())))
    print(f"{sum(totals.values())} faults in all; seeds that failed: {failed or 'none'}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
