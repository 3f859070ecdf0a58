"""The table of actions: who answers each, and what the edge may answer in the owner's place (rules 2 and 9)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from busbar.ocpp.versions import Version
from busbar.resources import schemas_folder

_NOW = "$now"


@dataclass(frozen=True, slots=True)
class StationAction:
    """A row of `schemas/actions.toml`: an action that a station sends to the CSMS."""

    name: str
    owner: str
    """The one service that answers it; `edge` answers at once and publishes all the same."""
    fallback: Mapping[str, Any] | None
    """The minimal valid payload for a late answer, with `$now` for the current time; `None`: go on waiting."""
    send: bool
    """Whether it travels as OCPP 2.1 SEND, which is never answered."""


@cache
def _table() -> Mapping[Version, tuple[Mapping[str, StationAction], tuple[str, ...]]]:
    rows = tomllib.loads((schemas_folder() / "actions.toml").read_text("utf-8"))
    return {Version.from_label(label): _read_version(values) for label, values in rows.items()}


def _read_version(values: dict[str, Any]) -> tuple[Mapping[str, StationAction], tuple[str, ...]]:
    csms = tuple(values.pop("csms_actions"))
    stations = {
        name: StationAction(name, row["owner"], row.get("fallback"), row.get("send", False))
        for name, row in values.items()
    }
    return MappingProxyType(stations), csms


def station_actions(version: Version) -> Mapping[str, StationAction]:
    """The actions that a station may send to the CSMS, by name."""
    return _table()[version][0]


def csms_actions(version: Version) -> tuple[str, ...]:
    """The actions that the CSMS may ask of a station."""
    return _table()[version][1]


def owner(version: Version, action: str) -> str:
    """The one service that answers the action. Raises `KeyError` for an action that stations do not send."""
    return station_actions(version)[action].owner


def fallback(version: Version, action: str, now: str) -> dict[str, Any] | None:
    """The payload of a late answer, or `None` where only the owner can answer.

    Args:
        now: The current time as OCPP writes it.
    """
    row = station_actions(version)[action]
    if row.fallback is None:
        return None
    return {name: now if value == _NOW else value for name, value in row.fallback.items()}


@cache
def is_known(action: str) -> bool:
    """Whether any version has this action in either direction: then it is NotSupported rather than NotImplemented."""
    return any(action in stations or action in csms for stations, csms in _table().values())
