from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.command_route import _names
from services.api.handlers import problem_of
from services.api.problems import Problem
from services.api.reading import cursor, dump_json, printable, read_cursor
from services.api.store.stations import _after_prefix


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/stations/CS-1/commands/Reset", ("CS-1", "Reset")),
        ("/v1/stations/a b;c/commands/X", ("a b;c", "X")),
        ("/v1/stations/CS-1/commands", None),
        ("/v1/stations/CS-1/commands/", None),
        ("/v1/stations//commands/Reset", None),
        ("/v1/stations/a/b/commands/Reset", None),
        ("/v1/stations/CS-1/commands/Reset/more", None),
        ("/v1/stations/CS-1/commands/Reset/commands/Reset", None),
        ("/v2/stations/CS-1/commands/Reset", None),
        ("", None),
    ],
)
def test_only_the_path_of_commands_is_taken(path: str, names: tuple[str, str] | None) -> None:
    assert _names(path) == names


@given(st.text(), st.integers())
def test_a_cursor_gives_back_what_it_was_made_of(text: str, number: int) -> None:
    number %= 1 << 63
    assert read_cursor(cursor(text.encode("utf-8", "replace").decode(), number), str, int) is not None
    assert read_cursor(cursor(number), int) == [number]


@given(st.text())
def test_any_other_text_is_no_cursor(text: str) -> None:
    try:
        parts = read_cursor(text, str, str)
    except Problem:
        return
    assert parts is not None
    assert len(parts) == 2


def test_no_cursor_is_the_first_page() -> None:
    assert read_cursor(None, str) is None


@given(st.text(min_size=1), st.text())
def test_what_begins_with_a_prefix_lies_between_it_and_what_follows(prefix: str, rest: str) -> None:
    following = _after_prefix(prefix)
    assert prefix.encode("utf-8", "surrogatepass") <= (prefix + rest).encode("utf-8", "surrogatepass")
    assert (prefix + rest).encode("utf-8", "surrogatepass") < following.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", ["\0", "a\nb", "\x1b[31m", "\x7f"])
def test_control_characters_are_not_printable(text: str) -> None:
    with pytest.raises(ValueError, match="control"):
        printable(text)


def test_decimals_are_written_digit_by_digit() -> None:
    number = Decimal("123456789012345678.000001")
    assert dump_json({"wh": number}) == b'{"wh":123456789012345678.000001}'
    assert dump_json([Decimal("1E+3"), Decimal("0.500000")]) == b"[1000,0.5]"


def test_subclasses_of_uuid_are_written_as_text() -> None:
    class Other(UUID):
        pass

    value: Any = Other(int=1)
    assert orjson.loads(dump_json([value])) == [str(UUID(int=1))]


def test_an_exception_that_nobody_thought_of_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    problem = problem_of(ZeroDivisionError("secret of the inside"))
    assert problem.status == 500
    assert "secret" not in str(problem.document())
    assert "ZeroDivisionError" in caplog.text
