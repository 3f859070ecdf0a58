"""Arrays in our own codecs: the server sees the same bytes as from asyncpg's, and reads come back the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busbar.pg_arrays import install

LONG = st.integers(-(2**63), 2**63 - 1)
ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "bigint": LONG,
    "int": st.integers(-(2**31), 2**31 - 1),
    "double precision": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100),
    "bytea": st.binary(max_size=200),
    "uuid": st.one_of(st.uuids(), st.uuids().map(str), st.uuids().map(lambda each: str(each).upper())),
}
COLUMNS = st.sampled_from(sorted(ELEMENTS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.one_of(st.lists(ELEMENTS[name]), st.lists(st.one_of(st.none(), ELEMENTS[name])))
    )
)


class Both:
    """A connection with our codecs, and one with asyncpg's."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours = ours
        self.theirs = theirs


@pytest.fixture
async def both(postgres_url: str) -> AsyncIterator[Both]:
    ours, theirs = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    install(ours)
    try:
        yield Both(ours, theirs)
    finally:
        await ours.close()
        await theirs.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=COLUMNS)
async def test_the_server_sees_and_tells_the_same(both: Both, column: tuple[str, list[Any]]) -> None:
    name, values = column
    query = f"SELECT array_send($1::{name}[]) AS seen, $1::{name}[] AS told"
    ours, theirs = await both.ours.fetchrow(query, values), await both.theirs.fetchrow(query, values)
    assert ours["seen"] == theirs["seen"]
    assert ours["told"] == theirs["told"]
    assert [type(each) for each in ours["told"]] == [type(each) for each in theirs["told"]]


async def test_tuples_are_columns_too(both: Both) -> None:
    assert await both.ours.fetchval("SELECT $1::bigint[]", (1, None, 3)) == [1, None, 3]
    assert await both.ours.fetchval("SELECT $1::text[]", ()) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bigint", [1, 2**63]),
        ("bigint", [1, "2"]),
        ("bigint", [None, "2"]),
        ("int", [2**31]),
        ("boolean", [True, 2]),
        ("boolean", [True, "yes"]),
        ("text", ["a", b"b"]),
        ("text", ["a", "\ud800"]),
        ("bytea", [b"a", "b"]),
        ("uuid", [str(UUID(int=1)), "00000000-0000-0000-0000-00000000000"]),
        ("uuid", ["00000000-0000-0000-0000-0000000000000", "00000000-0000-0000-0000-00000000000"]),
        ("uuid", [None, "no-uuid"]),
    ],
)
async def test_what_is_not_of_the_type_is_refused_before_it_is_sent(both: Both, name: str, values: list[Any]) -> None:
    with pytest.raises(asyncpg.DataError):
        await both.theirs.fetchval(f"SELECT $1::{name}[]", values)
    with pytest.raises(asyncpg.DataError):
        await both.ours.fetchval(f"SELECT $1::{name}[]", values)
    assert await both.ours.fetchval("SELECT 1") == 1


async def test_texts_that_come_again_are_remembered_within_bounds(both: Both) -> None:
    for start in range(0, 100_000, 10_000):
        texts = [f"CS-{number}" for number in range(start, start + 10_000)]
        assert await both.ours.fetchval("SELECT $1::text[]", texts) == texts
    assert await both.ours.fetchval("SELECT ($1::text[])[2]", ["a", "x" * 100_000]) == "x" * 100_000


async def test_more_dimensions_than_one_are_an_error_in_words(both: Both) -> None:
    with pytest.raises(ValueError, match="an array of 2 dimensions"):
        await both.ours.fetchval("SELECT '{{1,2},{3,4}}'::bigint[]")
