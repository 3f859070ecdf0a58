"""The demo fleet: stations with generated passwords and the id tokens of its drivers.

`fleet.json` holds what the database does not: the passwords. It is written once and grows when a larger fleet is
asked for, so that a second start finds the same stations.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from busbar.local.postgres_files import write_secret
from busbar.passwords import generate_password, hash_password

TOKENS_PER_STATION = 2


@dataclass(frozen=True, slots=True)
class FleetStation:
    """A station as its installer knows it."""

    station_id: str
    password: str
    """For Basic authentication, with the station id as the user name."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The content of `fleet.json`."""

    stations: tuple[FleetStation, ...]
    id_tokens: tuple[str, ...]
    """Of type ISO14443: they authorize at every station."""

    @classmethod
    def read(cls, path: Path) -> Fleet:
        table = json.loads(path.read_text())
        stations = tuple(FleetStation(**station) for station in table["stations"])
        return cls(stations, tuple(table["id_tokens"]))


def ensure_fleet(path: Path, size: int) -> Fleet:
    """The fleet in this file, made or enlarged to `size` stations."""
    try:
        fleet = Fleet.read(path)
    except FileNotFoundError:
        fleet = Fleet((), ())
    known = len(fleet.stations)
    new = tuple(FleetStation(f"DEMO-{number:04d}", generate_password()) for number in range(known + 1, size + 1))
    tokens = tuple(f"D3{number:012X}" for number in range(len(fleet.id_tokens) + 1, size * TOKENS_PER_STATION + 1))
    fleet = Fleet(fleet.stations + new, fleet.id_tokens + tokens)
    write_secret(path, json.dumps(asdict(fleet), indent=1))
    return fleet


async def register(fleet: Fleet, connection: asyncpg.Connection[asyncpg.Record], pepper: bytes) -> None:
    """Make the fleet known to the CSMS. What operators have changed since stays; passwords are set anew."""
    await connection.executemany(
        "INSERT INTO config.stations (station_id, password_hash, site_id) VALUES ($1, $2, 'DEMO')"
        " ON CONFLICT (station_id) DO UPDATE SET password_hash = EXCLUDED.password_hash",
        [(station.station_id, hash_password(station.password, pepper, generated=True)) for station in fleet.stations],
    )
    await connection.executemany(
        "INSERT INTO config.tokens (id_token, id_token_key, id_token_type) VALUES ($1, $2, 'ISO14443')"
        " ON CONFLICT (id_token_key) DO NOTHING",
        [(token, token.casefold()) for token in fleet.id_tokens],
    )
