"""The default tariffs of OCPP 2.1 stations: told as they are assigned, and compared with what a station holds. Pure.

A boot is only noted. A look, which comes when its time has come, asks the station what it holds (GetTariffs); its
answer is compared with what is assigned: what is not ours or not valid any more is removed (ClearTariffs), what is
missing is installed (SetDefaultTariff). Later changes of the configuration lead to another look. A tariff whose
translation would price sessions otherwise is not told at all: the CSMS prices then, as it does anyway.

Spec: OCPP 2.1 I07 (default tariff), I09 (GetTariffs), I10 (ClearTariffs), I08.FR.08 (one id never changes its content).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from busbar.pricing.assignment import SessionStart, TariffVersion
from busbar.records import Result, StationCall
from busbar.tariffs import station_tariff
from services.billing.commands import command, make_id
from services.billing.desk.model import CommandNews, State, StationTariff, TariffLook, TariffStation

BOOTED = "booted"
QUERIED = "queried"
KNOWN = "known"
UNSUPPORTED = "unsupported"

ACTIONS = frozenset({"GetTariffs", "SetDefaultTariff", "ClearTariffs"})
QUERY_MS = 5 * 60_000
"""How long a station may take to say what it holds."""
INSTALL_MS = 24 * 3_600_000
"""How long a tariff waits for a station that is offline."""
RETRY_MS = 10 * 60_000
"""After an outcome that says nothing about the station's tariffs, it is asked again after so long."""
_REFUSED = frozenset({"Rejected", "TooManyElements", "ConditionNotSupported", "DuplicateTariffId"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The default tariff that an EVSE is to have."""

    station_tariff_id: str
    tariff_id: str
    tariff_version: int
    tariff: Mapping[str, Any] | None
    """The TariffType; `None` if the station would price sessions otherwise by it."""
    reason: str = ""
    """Why it would."""


def fold_boot(state: State, call: StationCall) -> list[Result]:
    """Note that what the station holds is not known any more."""
    known = state.stations.get(call.station_id)
    if not state.policy.push_tariffs or (known is not None and known.booted_at_ms > call.received_at_ms):
        return []
    state.stations[call.station_id] = TariffStation(
        station_id=call.station_id,
        state=BOOTED,
        booted_at_ms=call.received_at_ms,
        revision=-1,
        look_at_ms=call.received_at_ms,
    )
    state.changed_stations.add(call.station_id)
    return []


def fold_look(state: State, look: TariffLook) -> list[Result]:
    """Compare a station's tariffs with what is assigned to it now, and act on it."""
    station = state.stations.get(look.station_id)
    if station is None:
        return []
    if station.revision == state.book.revision and (station.look_at_ms is None or station.look_at_ms > look.at_ms):
        return []
    wanted, again_ms = wanted_tariffs(state, look.station_id, look.at_ms)
    station.revision, station.look_at_ms = state.book.revision, again_ms
    state.changed_stations.add(station.station_id)
    rows = _rows(state, station.station_id)
    match station.state:
        case "booted" if wanted or rows:
            return [_query(state, station, look.at_ms)]
        case "known":
            held = {row.station_tariff_id: {row.evse_id} for row in rows.values() if row.status in ("sent", "Accepted")}
            settled = {row.station_tariff_id for row in rows.values() if row.status in _REFUSED}
            return _install(state, station, wanted, held, settled, look.at_ms)
    return []


def fold_news(state: State, news: CommandNews) -> list[Result]:
    """The outcome of a command that the desk sent."""
    station = state.stations.get(news.station_id)
    if station is None:
        return []
    if news.action == "GetTariffs" and news.command_id == station.query_id:
        return _fold_held(state, station, news)
    if news.action == "SetDefaultTariff":
        for row in _rows(state, news.station_id).values():
            if row.command_id == news.command_id and row.status == "sent":
                _fold_installed(state, station, row, news)
    return []


def wanted_tariffs(state: State, station_id: str, at_ms: int) -> tuple[dict[int, Wanted], int | None]:
    """What each EVSE is to have, 0 being all without one of their own, and when that may change by itself."""
    site_id = state.settings_of(station_id).site_id
    book = state.book
    starts = {0: SessionStart(at_ms, station_id, site_id=site_id)}
    for subject in sorted(book.connectors_of(station_id)):
        parts = subject[len(station_id) + 1 :].split("/")
        if len(parts) == 2:
            evse_id, connector_id = map(int, parts)
            # Stations know one default for each EVSE: its first connector's.
            starts.setdefault(evse_id, SessionStart(at_ms, station_id, connector_id, evse_id, site_id))
    found: dict[int, Wanted] = {}
    for evse_id, start in starts.items():
        version = book.decide(start).version
        if version is not None:
            wanted = translated(version)
            everywhere = found.get(0)
            # Spec: I07.FR.04, one id is not installed twice.
            if everywhere is None or wanted.station_tariff_id != everywhere.station_tariff_id:
                found[evse_id] = wanted
    changes = [at for start in starts.values() if (at := book.next_decision_ms(start)) is not None]
    return found, min(changes, default=None)


def translated(version: TariffVersion) -> Wanted:
    """A version in the words of OCPP 2.1."""
    found = station_tariff(version)
    return Wanted(found.tariff_id, version.tariff_id, version.version, found.tariff, found.lost)


def _fold_held(state: State, station: TariffStation, news: CommandNews) -> list[Result]:
    station.query_id = None
    state.changed_stations.add(station.station_id)
    if news.stage == "answered":
        status = news.payload.get("status")
        if status in ("Accepted", "NoTariff"):
            station.state = KNOWN
            wanted, again_ms = wanted_tariffs(state, station.station_id, news.at_ms)
            station.revision, station.look_at_ms = state.book.revision, again_ms
            held = held_tariffs(news.payload)
            return _install(state, station, wanted, held, (), news.at_ms)
        station.state, station.problem = UNSUPPORTED, f"GetTariffs: {status}"
    elif news.stage == "error":
        station.state, station.problem = UNSUPPORTED, f"GetTariffs: {news.error_code}"
    else:
        station.state, station.look_at_ms = BOOTED, news.at_ms + RETRY_MS
    state.count("station_tariffs", station.state)
    return []


def held_tariffs(payload: Mapping[str, Any]) -> dict[str, set[int]]:
    """The default tariffs in the answer to GetTariffs: by id the EVSEs, or 0. Those of drivers are not ours."""
    assignments = payload.get("tariffAssignments")
    found: dict[str, set[int]] = {}
    for item in assignments if isinstance(assignments, list) else ():
        if isinstance(item, dict) and item.get("tariffKind") == "DefaultTariff":
            evse_ids = item.get("evseIds")
            places = {each for each in evse_ids if isinstance(each, int)} if isinstance(evse_ids, list) else set()
            found.setdefault(str(item.get("tariffId")), set()).update(places or {0})
    return found


def _fold_installed(state: State, station: TariffStation, row: StationTariff, news: CommandNews) -> None:
    if news.stage == "answered":
        status = str(news.payload.get("status") or "")
        row.status = status if status == "Accepted" or status in _REFUSED else "failed"
        info = news.payload.get("statusInfo")
        reason = info.get("additionalInfo") or info.get("reasonCode") if isinstance(info, dict) else None
        row.reason = str(reason) if reason else None
    elif news.stage == "error":
        row.status, row.reason = "failed", news.error_code
    else:
        # It may have been carried out all the same: ask again what the station holds.
        row.status, row.reason = "failed", news.stage
        station.state, station.look_at_ms = BOOTED, news.at_ms + RETRY_MS
        state.changed_stations.add(station.station_id)
    row.changed_at_ms = news.at_ms
    state.changed_tariffs.add((row.station_id, row.evse_id))
    state.count("station_tariffs", row.status)


def _install(
    state: State,
    station: TariffStation,
    wanted: Mapping[int, Wanted],
    held: Mapping[str, Collection[int]],
    settled: Collection[str],
    at_ms: int,
) -> list[Result]:
    """Make the station hold what is wanted.

    Args:
        held: The default tariffs that it has, or is about to have, with their EVSEs.
        settled: Those that it has refused; they are not offered again before its next boot.
    """
    station_id = station.station_id
    keep = {
        each.station_tariff_id
        for evse_id, each in wanted.items()
        if each.tariff is not None and _in_place(state, station_id, evse_id, each.station_tariff_id, held)
    }
    results: list[Result] = []
    gone = sorted(set(held) - keep)
    if gone:
        results.append(_command(state, station, "ClearTariffs", {"tariffIds": gone}, at_ms))
    for evse_id in _rows(state, station_id).keys() - wanted.keys():
        del state.tariffs[station_id, evse_id]
        state.changed_tariffs.discard((station_id, evse_id))
        state.removed_tariffs.add((station_id, evse_id))
    for evse_id, each in wanted.items():
        row = state.tariffs.get((station_id, evse_id))
        same = row is not None and row.station_tariff_id == each.station_tariff_id
        status, reason, command_id = "sent", None, None
        if each.tariff is None:
            status, reason = "lossy", each.reason
        elif each.station_tariff_id in keep:
            status = "sent" if row is not None and same and row.status == "sent" else "Accepted"
        elif each.station_tariff_id in settled:
            continue
        else:
            payload = {"evseId": evse_id, "tariff": each.tariff}
            results.append(_command(state, station, "SetDefaultTariff", payload, at_ms))
            command_id = _command_id(station, "SetDefaultTariff", at_ms)
        if row is not None and same and row.status == status and command_id is None:
            continue
        state.tariffs[station_id, evse_id] = StationTariff(
            station_id,
            evse_id,
            each.station_tariff_id,
            each.tariff_id,
            each.tariff_version,
            status,
            reason,
            command_id,
            at_ms,
        )
        state.removed_tariffs.discard((station_id, evse_id))
        state.changed_tariffs.add((station_id, evse_id))
        state.count("station_tariffs", status)
    return results


def _in_place(
    state: State, station_id: str, evse_id: int, station_tariff_id: str, held: Mapping[str, Collection[int]]
) -> bool:
    """Whether the station has a tariff where it belongs.

    What was installed for all EVSEs may be reported for each of them.
    """
    places = held.get(station_tariff_id, ())
    if evse_id in places:
        return True
    row = state.tariffs.get((station_id, evse_id))
    return evse_id == 0 and bool(places) and row is not None and row.station_tariff_id == station_tariff_id


def _query(state: State, station: TariffStation, at_ms: int) -> Result:
    result = _command(state, station, "GetTariffs", {"evseId": 0}, at_ms, QUERY_MS)
    station.state, station.query_id = QUERIED, _command_id(station, "GetTariffs", at_ms)
    return result


def _command(
    state: State,
    station: TariffStation,
    action: str,
    payload: Mapping[str, Any],
    at_ms: int,
    timeout_ms: int = INSTALL_MS,
) -> Result:
    station.attempts += 1
    state.changed_stations.add(station.station_id)
    command_id = _command_id(station, action, at_ms)
    return command(command_id, station.station_id, action, payload, at_ms, timeout_ms, park=True)


def _command_id(station: TariffStation, action: str, at_ms: int) -> str:
    """The id of the command that was made last. Tables that are built anew ask anew, so the instant is part of it."""
    return make_id(station.station_id, station.booted_at_ms, station.attempts, action, at_ms)


def _rows(state: State, station_id: str) -> dict[int, StationTariff]:
    return {evse_id: row for (its_station, evse_id), row in state.tariffs.items() if its_station == station_id}
