"""Tariffs as a service holds them: which one a session has, and a pricer for it, without asking the database each time.

The configuration is read whole, and again when its revision has moved; the content of a version never changes, so it
is read once. Deciding and pricing are plain calls on what was read last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg

from busbar.config import ConfigError, Env
from busbar.pricing.assignment import (
    Assignment,
    Decision,
    Scope,
    SessionStart,
    TariffHistory,
    TariffVersion,
    decide,
    read_tariff,
)
from busbar.pricing.clock import zone_problem
from busbar.pricing.engine import DEFAULT_OPTIONS, Options, Pricer
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.problems import TariffError
from busbar.pricing.tariff import changed_tariff
from busbar.pricing.translate import to_tariff_type

logger = logging.getLogger(__name__)

Changes = tuple[tuple[str, int], ...]
"""Tariffs and their versions, one after the other."""

MAX_PRICERS = 1024
"""How many pricers are kept; each is some kilobytes and a millisecond to make."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]


@dataclass(frozen=True, slots=True)
class Site:
    """Where stations stand, as configured."""

    site_id: str
    time_zone: str
    name: str | None = None
    country_code: str | None = None
    postal_code: str | None = None
    city: str | None = None
    address: str | None = None
    latitude: Decimal | None = None
    longitude: Decimal | None = None
    party_id: str | None = None
    operator_country: str | None = None


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version as the database has it; the content is read when it is first needed."""

    tariff_id: str
    version: int
    content: str
    valid_from_ms: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that decides over the tariffs of sessions, as of one revision."""

    revision: int = -1
    versions: tuple[StoredVersion, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    sites: tuple[Site, ...] = ()


REVISION = "SELECT revision FROM config.tariff_revision"

_KEYS = "SELECT tariff_id, version, removed_at IS NOT NULL AS removed FROM config.tariffs ORDER BY tariff_id, version"

_CONTENTS = """
SELECT tariff_id, version, content, valid_from FROM config.tariffs
JOIN unnest($1::text[], $2::integer[]) AS wanted (tariff_id, version) USING (tariff_id, version)
"""

_ASSIGNMENTS = """
SELECT assignment_id, tariff_id, scope, subject, priority, valid_from, valid_until FROM config.tariff_assignments
ORDER BY created_at, assignment_id
"""

_SITES = """
SELECT site_id, time_zone, name, country_code, postal_code, city, address, latitude, longitude, party_id,
    operator_country
FROM config.sites ORDER BY site_id
"""


class TariffBook:
    """What is configured, cached.

    Args:
        time_zone: Of stations whose site has none.
        options: How to price.
        max_pricers: How many pricers are kept.
    """

    def __init__(
        self, time_zone: str = "UTC", *, options: Options = DEFAULT_OPTIONS, max_pricers: int = MAX_PRICERS
    ) -> None:
        self._time_zone = time_zone
        self._options = options
        self._max_pricers = max_pricers
        self._revision = -1
        self.assigns = False
        """Whether any tariff is assigned to anything at all. Every event of a session asks."""
        self._stored: dict[tuple[str, int], StoredVersion] = {}
        self._histories = _Histories()
        self._assignments: dict[tuple[Scope, str], list[Assignment]] = {}
        self._connectors: dict[str, list[str]] = {}
        self._sites: dict[str, Site] = {}
        self._pricers: dict[tuple[str, int, str, Changes], Pricer] = {}
        self._station_tariffs: dict[tuple[str, int], StationTariff] = {}

    @property
    def revision(self) -> int:
        """Of what was read last; -1 before."""
        return self._revision

    async def refresh(self, connection: Connection, revision: int | None = None) -> bool:
        """Read the configuration if it is another than what was read last, and say whether it was.

        Args:
            connection: To the database, one row is asked for.
            revision: What `REVISION` answered, for a caller who has it already.
        """
        if revision is None:
            revision = await connection.fetchval(REVISION)
        if revision == self._revision:
            return False
        # The revision was read before the rest, so what is newer than it is read again the next time.
        keys = [(row["tariff_id"], row["version"]) for row in await connection.fetch(_KEYS) if not row["removed"]]
        await self.load(connection, keys)
        self.accept(
            Configuration(
                revision=revision,
                versions=tuple(self._stored[key] for key in keys if key in self._stored),
                assignments=tuple(_assignment(row) for row in await connection.fetch(_ASSIGNMENTS)),
                sites=tuple(Site(**row) for row in await connection.fetch(_SITES)),
            )
        )
        return True

    async def load(self, connection: Connection, wanted: Iterable[tuple[str, int]]) -> None:
        """Read versions that are not known yet, so that `pricer` has them. One that does not exist stays unknown."""
        missing = sorted({key for key in wanted if key not in self._stored})
        if missing:
            names, numbers = zip(*missing, strict=True)
            for row in await connection.fetch(_CONTENTS, names, numbers):
                self._store(StoredVersion(row["tariff_id"], row["version"], row["content"], unix_ms(row["valid_from"])))

    def accept(self, configuration: Configuration) -> None:
        """Take another configuration for the one that was read."""
        for version in configuration.versions:
            self._store(version)
        self._histories = _Histories(configuration.versions, self._histories)
        self._assignments = {}
        for assignment in configuration.assignments:
            self._assignments.setdefault((assignment.scope, assignment.subject), []).append(assignment)
        self.assigns = bool(self._assignments)
        self._connectors = {}
        for scope, subject in self._assignments:
            if scope is Scope.CONNECTOR:
                self._connectors.setdefault(station_of(subject), []).append(subject)
        self._sites = {site.site_id: site for site in configuration.sites}
        self._revision = configuration.revision

    def decide(self, session: SessionStart) -> Decision:
        """Choose the tariff of a session that starts; the same configuration gives the same decision."""
        if not self._assignments:
            return _NONE
        mine = [
            assignment for subject in session.subjects().items() for assignment in self._assignments.get(subject, ())
        ]
        return decide(session, mine, self._histories) if mine else _NONE

    def next_decision_ms(self, session: SessionStart) -> int | None:
        """When `decide` may choose otherwise for such a session, if nobody changes the configuration until then."""
        instants: set[int | None] = set()
        for subject in session.subjects().items():
            for assignment in self._assignments.get(subject, ()):
                instants |= {assignment.valid_from_ms, assignment.valid_until_ms}
                history = self._histories.get(assignment.tariff_id)
                for version in history.versions if history else ():
                    own = version.tariff
                    instants |= {version.valid_from_ms, own.valid_from_ms, own.valid_until_ms}
        return min((at_ms for at_ms in instants if at_ms is not None and at_ms > session.at_ms), default=None)

    def connectors_of(self, station_id: str) -> list[str]:
        """The subjects of a station's connectors that tariffs are assigned to."""
        return self._connectors.get(station_id, [])

    def version(self, tariff_id: str, version: int) -> StoredVersion | None:
        """A version that was read."""
        return self._stored.get((tariff_id, version))

    def tariff_version(self, tariff_id: str, version: int) -> TariffVersion | None:
        """A version that was read; `None` if there is none that could be priced."""
        stored = self._stored.get((tariff_id, version))
        if stored is None:
            return None
        history = self._histories.get(tariff_id)
        for known in history.versions if history else ():
            if known.version == version:
                return known
        try:
            tariff = read_tariff(stored.content)
        except TariffError:
            return None
        return TariffVersion(tariff_id, version, stored.content, tariff, stored.valid_from_ms)

    def pricer(self, tariff_id: str, version: int, time_zone: str, changes: Changes = ()) -> Pricer:
        """What prices sessions with this version at this wall clock.

        Args:
            changes: The versions that a session had after it, one after the other.

        Raises:
            KeyError: A version was not read (`load`), or there is none.
            ValueError: The zone is unknown, or the content cannot be priced (`TariffError`).
        """
        key = (tariff_id, version, time_zone, changes)
        pricer = self._pricers.pop(key, None)
        if pricer is None:
            tariff = read_tariff(self._stored[tariff_id, version].content)
            for following in changes:
                tariff = changed_tariff(tariff, read_tariff(self._stored[following].content))
            pricer = Pricer(tariff, time_zone, self._options)
            if len(self._pricers) >= self._max_pricers:
                self._pricers.pop(next(iter(self._pricers)))
        self._pricers[key] = pricer  # the last in the order, and so the last to go
        return pricer

    def tariff_type(self, version: TariffVersion) -> str | None:
        """A version as a TariffType of OCPP 2.1, as JSON text; `None` if that would come to other prices."""
        return self.station_tariff(version).text

    def station_tariff(self, version: TariffVersion) -> StationTariff:
        """A version as stations of OCPP 2.1 get it."""
        key = (version.tariff_id, version.version)
        found = self._station_tariffs.get(key)
        if found is None:
            if len(self._station_tariffs) >= self._max_pricers:
                self._station_tariffs.clear()
            found = self._station_tariffs[key] = station_tariff(version)
        return found

    def site(self, site_id: str | None) -> Site | None:
        """What is known of a site."""
        return None if site_id is None else self._sites.get(site_id)

    def time_zone(self, site_id: str | None) -> str:
        """Whose wall clock decides at a site."""
        site = self.site(site_id)
        return self._time_zone if site is None else site.time_zone

    def _store(self, version: StoredVersion) -> None:
        self._stored[version.tariff_id, version.version] = version


class _Histories(Mapping[str, TariffHistory]):
    """Histories by tariff id, each read when it is first asked for. What was read for another configuration is kept."""

    def __init__(self, versions: Iterable[StoredVersion] = (), earlier: _Histories | None = None) -> None:
        self._stored: dict[str, list[StoredVersion]] = {}
        for version in versions:
            self._stored.setdefault(version.tariff_id, []).append(version)
        self._read: dict[str, TariffHistory] = {}
        if earlier is not None:
            for tariff_id, history in earlier._read.items():
                if self._stored.get(tariff_id) == earlier._stored[tariff_id]:
                    self._read[tariff_id] = history

    def __getitem__(self, tariff_id: str) -> TariffHistory:
        if tariff_id not in self._read:
            self._read[tariff_id] = _history(tariff_id, self._stored[tariff_id])
        return self._read[tariff_id]

    def __contains__(self, tariff_id: object) -> bool:
        return tariff_id in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _history(tariff_id: str, stored: Iterable[StoredVersion]) -> TariffHistory:
    history = TariffHistory(tariff_id)
    for item in stored:
        try:
            tariff = read_tariff(item.content)
        except TariffError as error:
            # It was priceable when it came; sessions go on with what else is valid, and without a price otherwise.
            logger.error(
                "a version of a tariff cannot be priced",
                extra={"tariff_id": tariff_id, "version": item.version, "reason": str(error)[:500]},
            )
            continue
        version = TariffVersion(tariff_id, item.version, item.content, tariff, item.valid_from_ms)
        history = replace(history, versions=(*history.versions, version), last_version=item.version)
    return history


@dataclass(frozen=True, slots=True)
class StationTariff:
    """A version in the words of OCPP 2.1, under an id that no other content has."""

    tariff_id: str
    """The TariffType's `tariffId`."""
    tariff: Mapping[str, Any] | None
    """The TariffType; `None` if it would come to other prices."""
    lost: str = ""
    """What it has no words for."""
    text: str | None = None
    """The TariffType as JSON text."""


def station_tariff(version: TariffVersion) -> StationTariff:
    """Translate a version for stations of OCPP 2.1."""
    tariff = version.tariff
    tariff_id = f"{version.tariff_id[:43]}-{tariff.fingerprint}"
    lost = ""
    if tariff.format.startswith("OCPI"):
        translation = to_tariff_type(tariff, tariff_id=tariff_id)
        found, lost = translation.tariff, "; ".join(f"{f.path}: {f.reason}" for f in translation.findings if f.lossy)
    else:
        found = {**tariff.source, "tariffId": tariff_id}
    if lost:
        return StationTariff(tariff_id, None, lost)
    return StationTariff(tariff_id, found, text=serialize_json(found))


_NONE = Decision(None, None, ())


def station_of(subject: str) -> str:
    """The station that a connector's subject names: `STATION/2` or `STATION/1/2`."""
    station_id, _, rest = subject.rpartition("/")
    head, _, evse_id = station_id.rpartition("/")
    return head if head and rest.isdigit() and evse_id.isdigit() else station_id


def _assignment(row: Mapping[str, Any]) -> Assignment:
    until = row["valid_until"]
    return Assignment(
        tariff_id=row["tariff_id"],
        scope=Scope[row["scope"].upper()],
        subject=row["subject"],
        valid_from_ms=unix_ms(row["valid_from"]),
        valid_until_ms=None if until is None else unix_ms(until),
        priority=row["priority"],
        assignment_id=str(row["assignment_id"]),
    )


def unix_ms(moment: datetime) -> int:
    """Unix milliseconds, rounded up: nothing is valid before the instant that it was given."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def time_zone_setting(env: Env) -> str:
    """`BUSBAR_TIME_ZONE`: the wall clock of stations whose site has none. Raises `ConfigError`."""
    name = env.text("BUSBAR_TIME_ZONE", "UTC")
    if problem := zone_problem(name):
        raise ConfigError(f"BUSBAR_TIME_ZONE: {problem}")
    return name
