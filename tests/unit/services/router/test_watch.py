from __future__ import annotations

from dataclasses import replace

from services.router.presence import Edge, fold_edge
from services.router.watch import EdgeWatch
from tests.unit.services.router.given import T0, heard

EDGE: Edge = fold_edge(None, heard("edge-0"))


def watched(watch: EdgeWatch, edge: Edge, first: int, last: int) -> list[int]:
    """The seconds at which the edge is found silent, looked at once a second."""
    return [second for second in range(first, last) if watch.look([edge], [0], T0 + second * 1_000)]


def test_an_edge_that_says_nothing_for_the_whole_time_is_silent() -> None:
    assert watched(EdgeWatch(15_000), EDGE, 0, 18) == [15, 16, 17]


def test_a_router_that_has_just_begun_to_listen_blames_nobody() -> None:
    long_ago = replace(EDGE, last_seen_ms=T0 - 3_600_000)
    assert watched(EdgeWatch(15_000), long_ago, 0, 15) == []


def test_a_router_that_was_stopped_for_a_while_begins_anew() -> None:
    watch = EdgeWatch(15_000)
    assert watched(watch, EDGE, 0, 10) == []
    assert watched(watch, EDGE, 40, 54) == []
    assert watched(watch, EDGE, 54, 56) == [55]


def test_a_router_that_takes_a_partition_over_begins_anew() -> None:
    watch = EdgeWatch(15_000)
    assert watched(watch, EDGE, 0, 10) == []
    assert watch.look([EDGE], [1], T0 + 10_000) == []
    assert watched(watch, EDGE, 11, 26) == []


def test_a_sign_of_life_begins_the_time_anew() -> None:
    watch = EdgeWatch(15_000)
    assert watched(watch, EDGE, 0, 10) == []
    assert watched(watch, replace(EDGE, last_seen_ms=T0 + 9_000), 10, 25) == []


def test_an_edge_that_stopped_or_is_silent_already_is_left_alone() -> None:
    for edge in (replace(EDGE, event="stopped"), replace(EDGE, silent=True)):
        assert watched(EdgeWatch(15_000), edge, 0, 30) == []
