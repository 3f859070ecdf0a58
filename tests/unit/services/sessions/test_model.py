"""What is stored of a session."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import RFC_4122, UUID

import orjson
import pytest

from services.sessions.energy import Energy
from services.sessions.model import Session, dump_session, load_session, make_uuid

STORED = [entry for entry in fields(Session) if entry.compare and entry.name != "energy"]
FLAGS = [entry.name for entry in STORED if entry.type == "bool"]


@pytest.mark.parametrize("flag", FLAGS)
def test_every_field_is_stored_in_its_place(flag: str) -> None:
    session = Session(*(_value(entry.type, number) for number, entry in enumerate(STORED)))
    session.energy = Energy(*(_value(entry.type, number) for number, entry in enumerate(fields(Energy))))
    setattr(session, flag, True)
    raw = dump_session(session)
    values = [getattr(session, entry.name) for entry in STORED]
    assert orjson.loads(raw) == orjson.loads(
        orjson.dumps([values, [getattr(session.energy, e.name) for e in fields(Energy)]])
    )
    session.change = 1
    assert dump_session(session) == raw
    assert load_session(raw) == session


@pytest.mark.parametrize("number", range(50))
def test_an_id_is_a_uuid_of_its_parts_as_uuids_are_written(number: int) -> None:
    made = make_uuid("CS1", "T", number)
    assert (str(UUID(made)), UUID(made).version, UUID(made).variant) == (made, 8, RFC_4122)
    assert made == make_uuid("CS1", "T", str(number)) != make_uuid("CS1", "T", number + 1)


def _value(type_: Any, number: int) -> Any:
    """A value of a type that no other field has; nothing can be had of booleans."""
    match type_:
        case "bool":
            return False
        case "str":
            return f"text {number}"
        case "int" | "int | None":
            return 1000 + number
        case "tuple[TariffChange, ...]":
            return ((number, "T", 1),)
        case _:
            return [[number, number]]
