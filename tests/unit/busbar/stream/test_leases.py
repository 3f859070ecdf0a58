"""How workers share partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from busbar.config import Env
from busbar.stream.leases import Row, Survey, new_worker_id, plan_share
from busbar.stream.settings import WorkerSettings


def survey(owners: dict[int, str | None], workers: list[str]) -> Survey:
    return Survey([Row(number, owner, owner is None) for number, owner in owners.items()], workers)


def owned_by(owners: dict[int, str | None], worker: str) -> list[int]:
    return [number for number, owner in owners.items() if owner == worker]


def test_a_single_worker_takes_everything() -> None:
    assert plan_share(survey(dict.fromkeys(range(4)), ["a"]), "a", []).claim == 4


def test_four_partitions_among_three_workers_are_two_one_and_one() -> None:
    workers = ["a", "b", "c"]
    assert sorted(plan_share(survey(dict.fromkeys(range(4)), workers), name, []).claim for name in workers) == [1, 1, 2]


def test_more_workers_than_partitions_leave_some_with_nothing() -> None:
    workers = list("abcdef")
    claims = [plan_share(survey(dict.fromkeys(range(4)), workers), name, []).claim for name in workers]
    assert sorted(claims) == [0, 0, 1, 1, 1, 1]


def test_a_newcomer_costs_one_worker_its_surplus_and_the_others_nothing() -> None:
    owners: dict[int, str | None] = {0: "m", 1: "m", 2: "z", 3: "z"}
    workers = ["m", "z", "a"]
    plans = {name: plan_share(survey(owners, workers), name, owned_by(owners, name)) for name in workers}
    assert [len(plan.release) for plan in plans.values()].count(1) == 1
    assert all(plan.claim == 0 for plan in plans.values())


def test_what_a_worker_holds_but_has_forgotten_it_may_claim() -> None:
    owners: dict[int, str | None] = {0: "a", 1: "a", 2: "a", 3: "a"}
    assert plan_share(survey(owners, ["a"]), "a", [0, 1]).claim == 2


def test_the_partitions_of_a_dead_worker_wait_for_its_leases() -> None:
    owners: dict[int, str | None] = {0: "a", 1: "a", 2: "dead", 3: "dead"}
    assert plan_share(survey(owners, ["a"]), "a", [0, 1]).claim == 0


def test_a_worker_without_a_heartbeat_takes_nothing() -> None:
    assert plan_share(survey(dict.fromkeys(range(4)), ["b"]), "a", []) == plan_share(survey({}, []), "a", [])


@given(
    partitions=st.integers(1, 24),
    changes=st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 7), st.booleans()), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_shares_become_even_and_then_nothing_moves(
    partitions: int, changes: list[tuple[str, int, bool]], order: object
) -> None:
    """Workers come, leave and die, looking one after the other in any order; at rest the shares are exact."""
    owners: dict[int, str | None] = dict.fromkeys(range(partitions))
    workers = {"w0"}

    def look(worker: str) -> int:
        mine = owned_by(owners, worker)
        plan = plan_share(survey(owners, sorted(workers)), worker, mine)
        for number in plan.release:
            owners[number] = None
        free = [number for number, owner in owners.items() if owner is None and number not in plan.release]
        for number in free[: plan.claim]:
            owners[number] = worker
        return len(plan.release) + plan.claim

    def settle() -> None:
        for _ in range(6):
            names = sorted(workers)
            order.shuffle(names)  # type: ignore[attr-defined]
            if not sum([look(name) for name in names]):
                return
        raise AssertionError(f"still moving: {owners}")

    settle()
    for sign, number, gracefully in changes:
        name = f"w{number}"
        if sign == "+":
            workers.add(name)
        elif len(workers) > 1:
            workers.discard(name)
            for partition in owned_by(owners, name):
                owners[partition] = None
        if gracefully:
            settle()
    settle()
    shares = sorted(len(owned_by(owners, name)) for name in workers)
    assert sum(shares) == partitions
    assert shares[-1] - shares[0] <= 1


@given(st.integers(1, 48), st.integers(1, 8))
def test_one_newcomer_moves_no_more_than_its_own_share(partitions: int, count: int) -> None:
    workers = [f"w{number}" for number in range(count)]
    owners: dict[int, str | None] = {number: workers[number % count] for number in range(partitions)}
    seen = survey(owners, ["newcomer", *workers])
    released = sum(len(plan_share(seen, name, owned_by(owners, name)).release) for name in workers)
    assert released in (partitions // (count + 1), partitions // (count + 1) + 1)


def test_every_start_of_a_process_is_a_new_worker() -> None:
    assert new_worker_id() != new_worker_id()


def test_the_lease_is_set_by_the_environment() -> None:
    assert WorkerSettings.from_env(Env({})).lease_seconds == 6.0
    assert WorkerSettings.from_env(Env({"BUSBAR_LEASE_SECONDS": "3"})).lease_seconds == 3.0
