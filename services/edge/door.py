"""Who may come in: from a visitor to the settings of its connection, or to the refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.edge.credentials import FailureLimit, PasswordChecker
from services.edge.directory import Found, StationDirectory, Unavailable
from services.edge.handshake import (
    Refusal,
    StationSettings,
    Visitor,
    busy,
    check_profile,
    choose_subprotocol,
    security_profile,
    unknown_station,
    wrong_password,
)

Gate = Callable[[], Refusal | None]
"""Looks at the state of the edge as a whole: `None` lets a visitor on to the next gate."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A visitor that may come in."""

    settings: StationSettings
    subprotocol: str
    security_profile: int


Decision = Callable[[Admitted | Refusal], None]


class Door:
    """Decides about visitors. Calls back at once wherever nothing has to be waited for.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        directory: StationDirectory,
        checker: PasswordChecker,
        failures: FailureLimit,
        *,
        clock: Callable[[], float],
        auto_register: bool = False,
        allow_unsecured: bool = False,
    ) -> None:
        self.gates: list[Gate] = []
        """Asked first, in order."""
        self._directory = directory
        self._checker = checker
        self._failures = failures
        self._clock = clock
        self._auto_register = auto_register
        self._allow_unsecured = allow_unsecured

    def admit(self, visitor: Visitor, decided: Decision) -> None:
        """Decide about a visitor; `decided` is called once, now or later on the loop."""
        for gate in self.gates:
            if (refusal := gate()) is not None:
                decided(refusal)
                return
        is_recent, found = self._directory.recent(visitor.station_id)
        if is_recent:
            self._judge(visitor, found, decided, from_memory=True)
        else:
            self._look_up(visitor, decided)

    def _look_up(self, visitor: Visitor, decided: Decision) -> None:
        def answer(found: Found | Unavailable) -> None:
            if isinstance(found, Unavailable):
                decided(busy("no_directory", "the list of stations cannot be read at the moment: try again"))
            else:
                self._judge(visitor, found, decided, from_memory=False)

        self._directory.request(visitor.station_id, answer)

    def _judge(self, visitor: Visitor, found: Found, decided: Decision, *, from_memory: bool) -> None:
        try:
            settings = self._settings(visitor, found)
            subprotocol = choose_subprotocol(visitor, settings)
        except Refusal as refusal:
            if from_memory:  # it may have been registered or changed a moment ago
                self._look_up(visitor, decided)
            else:
                decided(refusal)
            return
        admitted = Admitted(settings, subprotocol, security_profile(visitor, settings))
        stored = settings.password_hash
        if stored is None or self._checker.is_verified(visitor.station_id, stored, visitor.passwords):
            decided(admitted)
        elif self._failures.is_exceeded(visitor.address, visitor.station_id, self._clock()):
            decided(Refusal(429, "too_many_failures", "too many wrong passwords: wait a minute", retry=True))
        else:
            self._check_password(visitor, stored, admitted, decided, from_memory=from_memory)

    def _settings(self, visitor: Visitor, found: Found) -> StationSettings:
        if found is None:
            if not self._auto_register:
                raise unknown_station()
            return StationSettings(visitor.station_id, security_profile=0)
        check_profile(visitor, found, allow_unsecured=self._allow_unsecured)
        return found

    def _check_password(
        self, visitor: Visitor, stored: str, admitted: Admitted, decided: Decision, *, from_memory: bool
    ) -> None:
        def checked(is_right: bool | None) -> None:
            if is_right:
                decided(admitted)
            elif is_right is None:
                decided(busy("authentication_busy", "too many stations are being authenticated: try again"))
            elif from_memory:  # the password may have been changed a moment ago
                self._look_up(visitor, decided)
            else:
                self._failures.note_failure(visitor.address, visitor.station_id, self._clock())
                decided(wrong_password())

        self._checker.check(visitor.station_id, stored, visitor.passwords, checked)
