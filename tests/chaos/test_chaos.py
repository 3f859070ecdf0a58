"""A short ordeal in every test run; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import Shape, run_seed
from tests.chaos.plan import make_plan


def test_a_seed_makes_the_same_plan_again() -> None:
    assert make_plan(7, 50, 2.0) == make_plan(7, 50, 2.0)
    assert make_plan(7, 50, 2.0) != make_plan(8, 50, 2.0)


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_nothing_is_lost_or_doubled_while_everything_breaks(tmp_path: Path) -> None:
    verdict, run = await run_seed(1, tmp_path / "data", Shape(faults=20, interval=2.0, stations=16, pace=0.8))
    assert run.total >= 12
    assert not verdict.problems, str(verdict)
