"""Stations that this process has folded before, so that they need not be loaded for every batch.

What is handed to a batch leaves the cache; it comes back once the batch is committed. So a batch that fails, for
whatever reason, is done again from the database. When a partition is not owned any more, everything is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.sessions.model import State, StationState


class StationCache:
    """The stations that were folded last.

    Args:
        limit: How many to keep. One takes some kilobytes.
    """

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._stations: dict[str, StationState] = {}
        self._lent: dict[str, StationState] = {}
        """What was handed out last, if it has not come back."""

    def __len__(self) -> int:
        return len(self._stations)

    def take(self, station_ids: Iterable[str]) -> list[StationState]:
        """The known ones among these stations. They are the caller's."""
        taken = [station for each in station_ids if (station := self._stations.pop(each, None)) is not None]
        for station in taken:
            self._lent[station.station_id] = station
        return taken

    def put_back(self, state: State) -> None:
        """The batch is committed: its stations are as the tables have them."""
        if len(self._stations) + len(state.stations) > self._limit:
            for station_id in list(self._stations)[: self._limit // 4 + len(state.stations)]:
                del self._stations[station_id]
        for station_id, station in state.stations.items():
            _settle(station)
            self._stations[station_id] = station
            self._lent.pop(station_id, None)

    def configure(self, station_id: str, configuration: tuple[str, dict[str, object]]) -> None:
        """Somebody has changed what is configured of a station."""
        station = self._stations.get(station_id) or self._lent.get(station_id)
        if station is not None:
            station.site_id, station.quirks = configuration

    def forget(self) -> None:
        """Other processes may write from now on."""
        self._stations.clear()
        self._lent.clear()


def _settle(station: StationState) -> None:
    """Nothing of it is waiting to be stored; sessions that are over are looked up if they are named again."""
    station.is_new = station.changed = False
    over = []
    for session in station.sessions.values():
        session.is_new, session.change = False, 0
        if not session.is_open and session.session_id not in station.unsettled:
            over.append(session)
    for session in over:
        station.remove(session)
    if not station.looked_up <= station.transactions.keys():
        station.looked_up &= station.transactions.keys()
