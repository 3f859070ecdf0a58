"""The sources that are compiled do what the plain ones do."""

from __future__ import annotations

from typing import Any

import pytest

from busbar.compiled import ROOT
from busbar.compiled.build import MODULES
from busbar.compiled.generate import path_of
from busbar.compiled.rewriting import with_constructors, with_finals, with_numbers

SOURCE = '''\
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Point:
    """A point.

    Somewhere.
    """

    x: int
    """How far right."""
    y: int | None = None
    marks: list[str] = field(default_factory=list)
    note: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Left alone."""

    x: int


@dataclass(slots=True)
class Odd:
    """Left alone, for `None` is not the same as nothing here."""

    x: list[int] | None = field(default_factory=list)
'''


def module(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "module", "exec"), names)
    return names


def test_a_dataclass_gets_the_constructor_that_it_would_have_had() -> None:
    plain, written = module(SOURCE)["Point"], module(with_constructors(SOURCE))["Point"]
    for arguments in ((1,), (1, 2), (1, 2, ["a"]), (1, None, ["a"], "n")):
        assert repr(written(*arguments)) == repr(plain(*arguments))
    assert written(1) == written(x=1, note="not compared")
    assert written(1).marks is not written(1).marks
    with pytest.raises(TypeError):
        written()
    assert "self.x = x" in with_constructors(SOURCE)


def test_what_is_out_of_the_ordinary_is_left_alone() -> None:
    rewritten = with_constructors(SOURCE)
    assert rewritten.count("def __init__") == 1
    assert rewritten[rewritten.index("class Frozen") :] == SOURCE[SOURCE.index("class Frozen") :]


def test_annotations_say_that_a_float_may_be_a_whole_number() -> None:
    source = (
        "def round_up(vält: float, by: dict[str, float]) -> float | None:\n"
        "    digits: float = float(vält)\n"
        "    return digits if isinstance(digits, float) else None\n"
    )
    assert with_numbers(source) == (
        "def round_up(vält: int | float, by: dict[str, int | float]) -> int | float | None:\n"
        "    digits: int | float = float(vält)\n"
        "    return digits if isinstance(digits, float) else None\n"
    )


def test_what_is_assigned_once_is_final_and_names_of_types_are_not() -> None:
    source = (
        "from __future__ import annotations\n"
        "limit = 2**4\n"
        "memo: dict[str, int] = {}\n"
        "pack = Struct('<d').pack\n"
        "known: Final = 1\n"
        "Number = int | float\n"
        "Pair = tuple[int, int]\n"
        "T = TypeVar('T')\n"
        "twice = 1\n"
        "twice = 2\n"
        "said = 'no'\n"
        "def say():\n"
        "    global said\n"
        "    said = 'yes'\n"
        "class Of:\n"
        "    part = 1\n"
    )
    assert with_finals(source).splitlines()[1:4] == [
        "from typing import Final; limit: Final = 2**4",
        "memo: Final[dict[str, int]] = {}",
        "pack: Final = Struct('<d').pack",
    ]
    assert with_finals(source).splitlines()[4:] == source.splitlines()[4:]


@pytest.mark.parametrize("name", MODULES)
def test_lines_keep_their_numbers(name: str) -> None:
    source = (ROOT / path_of(name)).read_text("utf-8")
    rewritten = with_finals(with_constructors(with_numbers(source)))
    assert len(rewritten.splitlines()) == len(source.splitlines())
    compile(rewritten, name, "exec")
