"""Which tariff a session has: versions of tariffs, what they are assigned to, and who goes before whom.

The most particular assignment wins: token, token group, connector, station, site, default. What is chosen at the start
of a session is frozen for it; a version that has been used is never changed, a change is another version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from busbar.pricing.jsontext import parse_json
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.tariff import Tariff


class Scope(IntEnum):
    """What a tariff is assigned to; the lower goes before the higher."""

    TOKEN = 0
    TOKEN_GROUP = 1
    CONNECTOR = 2
    STATION = 3
    SITE = 4
    DEFAULT = 5


class TariffInUse(Exception):  # noqa: N818 - it names the tariff's state
    """A version that sessions have been priced with cannot be changed or removed."""


@dataclass(frozen=True, slots=True)
class TariffVersion:
    """One content of a tariff."""

    tariff_id: str
    """As the operator names it; the versions of a tariff share it."""
    version: int
    """From 1, never given twice."""
    content: str
    """The JSON text, byte for byte."""
    tariff: Tariff
    """The content, read."""
    valid_from_ms: int
    """From when sessions may start with it."""
    used: bool = False
    """Whether a session has been priced with it."""

    def valid_at(self, at_ms: int) -> bool:
        """Whether a session may start with it, by its own dates too."""
        own = self.tariff
        if at_ms < self.valid_from_ms or (own.valid_from_ms is not None and at_ms < own.valid_from_ms):
            return False
        return own.valid_until_ms is None or at_ms < own.valid_until_ms


@dataclass(frozen=True, slots=True)
class TariffHistory:
    """All versions of one tariff, oldest first."""

    tariff_id: str
    versions: tuple[TariffVersion, ...] = ()
    last_version: int = 0
    """The highest number ever given, also to a version that was removed."""

    def add(self, content: str, valid_from_ms: int) -> TariffHistory:
        """Add a version. The content of the latest one again, from the same instant, adds nothing.

        Raises:
            TariffError: The content cannot be priced.
        """
        tariff = read_tariff(content)
        if self.versions:
            latest = self.versions[-1]
            if latest.tariff.fingerprint == tariff.fingerprint and latest.valid_from_ms == valid_from_ms:
                return self
        number = self.last_version + 1
        version = TariffVersion(self.tariff_id, number, content, tariff, valid_from_ms)
        return replace(self, versions=(*self.versions, version), last_version=number)

    def change(self, number: int, content: str) -> TariffHistory:
        """Replace the content of a version that no session has been priced with.

        Raises:
            KeyError: There is no such version.
            TariffInUse: It has been used.
            TariffError: The content cannot be priced.
        """
        version = self._unused(number)
        return self._with(replace(version, content=content, tariff=read_tariff(content)))

    def remove(self, number: int) -> TariffHistory:
        """Remove a version that no session has been priced with. Raises as `change` does."""
        version = self._unused(number)
        return replace(self, versions=tuple(other for other in self.versions if other is not version))

    def use(self, number: int) -> TariffHistory:
        """Note that a session is priced with a version. Raises `KeyError` if there is no such version."""
        return self._with(replace(self[number], used=True))

    def __getitem__(self, number: int) -> TariffVersion:
        for version in self.versions:
            if version.version == number:
                return version
        raise KeyError(f"{self.tariff_id} has no version {number}")

    def at(self, at_ms: int, profile: str | None = None) -> TariffVersion | None:
        """The version that a session starting now has: of those that are valid, the one that became so last.

        Args:
            at_ms: When the session starts.
            profile: The session's kind by OCPI TariffType, such as `REGULAR` or `AD_HOC_PAYMENT`; `None` is any.
        """
        fitting = [
            version
            for version in self.versions
            if version.valid_at(at_ms) and profile in (None, version.tariff.source.get("type") or profile)
        ]
        return max(fitting, key=lambda version: (version.valid_from_ms, version.version), default=None)

    def _unused(self, number: int) -> TariffVersion:
        version = self[number]
        if version.used:
            raise TariffInUse(f"version {number} of {self.tariff_id} has been used: add another version")
        return version

    def _with(self, version: TariffVersion) -> TariffHistory:
        versions = tuple(version if other.version == version.version else other for other in self.versions)
        return replace(self, versions=versions)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A tariff for some sessions."""

    tariff_id: str
    scope: Scope
    subject: str = ""
    """The token's key, the id of group, station or site, or `connector_subject`; empty for the default."""
    valid_from_ms: int = 0
    valid_until_ms: int | None = None
    """Exclusive."""
    priority: int = 0
    """Decides between assignments of one scope: the higher goes first."""
    assignment_id: str = ""
    """How the configuration names it."""

    def __post_init__(self) -> None:
        if bool(self.subject) is (self.scope is Scope.DEFAULT):
            raise ValueError(f"an assignment by {self.scope.name} with the subject {self.subject!r}")


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What of a session decides over its tariff. What is not known is `None`."""

    at_ms: int
    station_id: str
    connector_id: int | None = None
    evse_id: int | None = None
    """OCPP 2.x; 1.6 has none."""
    site_id: str | None = None
    token_key: str | None = None
    """The id token, casefolded."""
    group_id: str | None = None
    profile: str | None = None
    """By OCPI TariffType."""

    def subjects(self) -> dict[Scope, str]:
        """Whom assignments may name to mean this session. A connector has no subject while it is not known."""
        found = {Scope.STATION: self.station_id, Scope.DEFAULT: ""}
        if self.token_key is not None:
            found[Scope.TOKEN] = self.token_key
        if self.group_id is not None:
            found[Scope.TOKEN_GROUP] = self.group_id
        if self.connector_id is not None:
            found[Scope.CONNECTOR] = connector_subject(self.station_id, self.connector_id, self.evse_id)
        if self.site_id is not None:
            found[Scope.SITE] = self.site_id
        return found


@dataclass(frozen=True, slots=True)
class Decision:
    """Which version a session has, and why. Without a version it cannot be priced: a state to be shown, not a zero."""

    version: TariffVersion | None
    assignment: Assignment | None
    passed_over: tuple[tuple[Assignment, str], ...]
    """Assignments that went before and could not be used, with the reason."""


def connector_subject(station_id: str, connector_id: int, evse_id: int | None = None) -> str:
    """The subject of a connector: `STATION/2` in 1.6, `STATION/1/2` with EVSE 1 in 2.x."""
    return f"{station_id}/{connector_id}" if evse_id is None else f"{station_id}/{evse_id}/{connector_id}"


def read_tariff(content: str) -> Tariff:
    """Read a tariff of either kind: a TariffType has a `tariffId`, an OCPI tariff has `elements`.

    Raises:
        TariffError: It cannot be priced.
    """
    source = parse_json(content)
    of_ocpp = isinstance(source, Mapping) and "tariffId" in source
    return parse_ocpp_tariff(source) if of_ocpp else parse_ocpi_tariff(source)


def decide(session: SessionStart, assignments: Iterable[Assignment], tariffs: Mapping[str, TariffHistory]) -> Decision:
    """Choose the tariff of a session that starts.

    An assignment whose tariff has no version that is valid now is passed over, so that an old tariff and the one that
    follows it may be assigned side by side.

    Args:
        session: What is known of it.
        assignments: All that may matter, in any order.
        tariffs: By tariff id.
    """
    subjects = session.subjects()
    mine = sorted(
        (assignment for assignment in assignments if subjects.get(assignment.scope) == assignment.subject),
        key=lambda a: (a.scope, -a.priority, -a.valid_from_ms, a.tariff_id),
    )
    passed_over: list[tuple[Assignment, str]] = []
    for assignment in mine:
        if not assignment.valid_from_ms <= session.at_ms:
            reason = "the assignment is not valid yet"
        elif assignment.valid_until_ms is not None and session.at_ms >= assignment.valid_until_ms:
            reason = "the assignment is no longer valid"
        elif assignment.tariff_id not in tariffs:
            reason = "there is no such tariff"
        else:
            version = tariffs[assignment.tariff_id].at(session.at_ms, session.profile)
            if version is not None:
                return Decision(version, assignment, tuple(passed_over))
            reason = "no version of the tariff is valid"
        passed_over.append((assignment, reason))
    return Decision(None, None, tuple(passed_over))
