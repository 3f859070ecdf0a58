"""Who is in a fleet: ids, passwords and versions, from a file or made up, and the stations themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busbar.config import ConfigError
from busbar.ocpp.versions import Version
from busbar.simulator.plan import stream
from busbar.simulator.station import Memory, Station, StationSettings
from busbar.simulator.station2 import Station21, Station201
from busbar.simulator.station16 import Station16
from busbar.simulator.tally import Tally

DEFAULT_MIX: Mapping[Version, float] = {Version.V16: 40, Version.V201: 40, Version.V21: 20}
GOLDEN_RATIO = 0.6180339887498949
MADE_UP_TOKENS = 20

_KINDS: Mapping[Version, type[Station]] = {
    Version.V16: Station16,
    Version.V201: Station201,
    Version.V21: Station21,
}


@dataclass(frozen=True, slots=True)
class Member:
    """One station of a fleet, as its installer knows it."""

    station_id: str
    password: str | None
    version: Version


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credentials file holds."""

    stations: tuple[tuple[str, str | None, Version | None], ...]
    """Id, password, and the version if the file fixes it."""
    id_tokens: tuple[str, ...]


def parse_mix(text: str) -> dict[Version, float]:
    """Read `1.6=40,2.0.1=40,2.1=20`: shares of any sum. Raises `ConfigError`."""
    mix: dict[Version, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            mix[Version(name)] = float(share or 1)
        except ValueError:
            known = ", ".join(Version)
            raise ConfigError(f"--mix: {part.strip()!r} is not VERSION=SHARE with one of {known}") from None
    if min(mix.values()) < 0 or sum(mix.values()) <= 0:
        raise ConfigError("--mix: the shares must not be negative, and not all zero")
    return mix


def version_of(position: int, mix: Mapping[Version, float], seed: int) -> Version:
    """The version of the station at a position. It stays when a fleet grows, and the shares hold at any size."""
    place = (stream(seed, "mix").random() + position * GOLDEN_RATIO) % 1.0 * sum(mix.values())
    for version, share in mix.items():
        place -= share
        if place < 0:
            return version
    return list(mix)[-1]


def read_credentials(path: Path) -> Credentials:
    """Read a fleet file: `{"stations": [{"station_id", "password", "version"?}], "id_tokens": […]}`, or the list alone.

    Raises:
        ConfigError: The file is not there or is of another form.
    """
    try:
        document: Any = json.loads(path.read_text())
        entries = document["stations"] if isinstance(document, dict) else document
        tokens = document.get("id_tokens", []) if isinstance(document, dict) else []
        stations = tuple(
            (str(entry["station_id"]), entry.get("password"), _version(entry.get("version"))) for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a fleet file: {error}") from None
    return Credentials(stations, tuple(map(str, tokens)))


def _version(text: str | None) -> Version | None:
    return None if text is None else Version(text)


def members(
    count: int,
    *,
    seed: int,
    mix: Mapping[Version, float],
    credentials: Credentials | None = None,
    prefix: str = "SIM-",
    password: str | None = None,
) -> list[Member]:
    """The first `count` stations of a fleet.

    Raises:
        ConfigError: The credentials are for fewer stations.
    """
    if credentials is None:
        return [
            Member(f"{prefix}{number:05d}", password, version_of(number, mix, seed)) for number in range(1, count + 1)
        ]
    if count > len(credentials.stations):
        raise ConfigError(
            f"the fleet file has {len(credentials.stations)} stations, and {count} are asked for: enlarge it, for"
            f" instance with `busbar up --fleet {count}`"
        )
    return [
        Member(station_id, known, version or version_of(number, mix, seed))
        for number, (station_id, known, version) in enumerate(credentials.stations[:count], start=1)
    ]


def made_up_tokens(seed: int) -> tuple[str, ...]:
    """Id tokens where no file names any; whether a CSMS accepts them is its affair."""
    draw = stream(seed, "tokens")
    return tuple(f"04{draw.randrange(16**12):012X}" for _ in range(MADE_UP_TOKENS))


def make_stations(
    fleet: Iterable[Member],
    settings: StationSettings,
    tally: Tally,
    *,
    started_at: float,
    memories: Mapping[str, Memory] | None = None,
) -> list[Station]:
    """The stations of a fleet, switched on but not connected."""
    kept = memories or {}
    return [
        _KINDS[member.version](
            member.station_id, settings, tally, started_at=started_at, memory=kept.get(member.station_id)
        )
        for member in fleet
    ]


def read_memories(path: Path) -> dict[str, Memory]:
    """Meter registers of an earlier run; empty if there was none."""
    try:
        document = json.loads(path.read_text())
        return {
            station_id: Memory({int(number): float(register) for number, register in registers.items()})
            for station_id, registers in document.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} does not hold the state of a fleet: {error}; remove it to start anew") from None


def write_memories(path: Path, stations: Sequence[Station], now: float) -> None:
    """Keep the meter registers for the next run, beside those of stations that did not take part."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        document = {}
    document |= {
        station.station_id: {str(number): register for number, register in station.memory(now).registers_wh.items()}
        for station in stations
    }
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)
