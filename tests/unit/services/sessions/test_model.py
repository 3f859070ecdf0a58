"""What is stored of a session."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import RFC_4122, UUID

import orjson
import pytest

from services.sessions.energy import Energy
from services.sessions.model import Session, dump_session, load_session, make_uuid

BLANK = Session("", "", "", 1, "", 1)
STORED = [entry.name for entry in fields(Session) if entry.compare and entry.name != "energy"]
OF_ENERGY = [entry.name for entry in fields(Energy)]
FLAGS = [name for name in STORED if getattr(BLANK, name) is False]


@pytest.mark.parametrize("flag", FLAGS)
def test_every_field_is_stored_in_its_place(flag: str) -> None:
    session = Session(*(_value(BLANK, name, number) for number, name in enumerate(STORED)))
    session.energy = Energy(*(_value(BLANK.energy, name, number) for number, name in enumerate(OF_ENERGY)))
    setattr(session, flag, True)
    raw = dump_session(session)
    values = [[getattr(session, name) for name in STORED], [getattr(session.energy, name) for name in OF_ENERGY]]
    assert orjson.loads(raw) == orjson.loads(orjson.dumps(values))
    session.change = 1
    assert dump_session(session) == raw
    assert load_session(raw) == session


@pytest.mark.parametrize("number", range(50))
def test_an_id_is_a_uuid_of_its_parts_as_uuids_are_written(number: int) -> None:
    made = make_uuid("CS1", "T", number)
    assert (str(UUID(made)), UUID(made).version, UUID(made).variant) == (made, 8, RFC_4122)
    assert made == make_uuid("CS1", "T", str(number)) != make_uuid("CS1", "T", number + 1)


def _value(blank: Any, name: str, number: int) -> Any:
    """A value that no other field has; nothing can be had of booleans."""
    match getattr(blank, name):
        case False:
            return False
        case str():
            return f"text {number}"
        case tuple():
            return ((number, "T", 1),)
        case None if name == "price_memory":
            return [number]
        case int() | None:
            return 1000 + number
        case _:
            return [[number, number]]
