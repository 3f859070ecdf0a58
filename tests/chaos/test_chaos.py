"""A short ordeal in every test run; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import Shape, run_seed
from tests.chaos.plan import PROCESSORS, make_plan


def test_a_seed_makes_the_same_plan_again() -> None:
    assert make_plan(7, 50, 2.0) == make_plan(7, 50, 2.0)
    assert make_plan(7, 50, 2.0) != make_plan(8, 50, 2.0)


@pytest.mark.parametrize("nodes", [1, 3])
def test_plans_have_every_kind_of_fault(nodes: int) -> None:
    what = {fault.what for seed in range(40) for fault in make_plan(seed, 50, 2.0, nodes)}
    services = {"edge", *PROCESSORS}
    processes = {*services, "api", "postgres", "kafka"}
    assert {f"{kind} {role}" for kind in ("kill", "stop") for role in processes} <= what
    assert {f"pause {role}" for role in processes - {"api", "kafka"}} <= what
    lines = {f"{role}-{to}" for role in services for to in ("postgres", "kafka")} | {"fleet-edge"}
    assert {f"{kind} {line}" for kind in ("cut", "hole") for line in lines} <= what
    assert ({"kill leader", "pause leader"} <= what) == (nodes == 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kafka_nodes", "seed", "faults"), [(1, 1, 20), (3, 4, 15)])
async def test_nothing_is_lost_or_doubled_while_everything_breaks(
    tmp_path: Path, kafka_nodes: int, seed: int, faults: int
) -> None:
    shape = Shape(kafka_nodes=kafka_nodes, faults=faults, interval=1.5, stations=12, transactions=1, pace=0.8)
    verdict, run = await run_seed(seed, tmp_path / "data", shape)
    assert run.total >= faults // 2
    assert not verdict.problems, str(verdict)
