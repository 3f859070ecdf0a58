"""Charging profiles as a simple station keeps them: stored by id, and the lowest limit of now obeyed."""

from __future__ import annotations

import math
from typing import Any

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.simulator.meter import GRID_VOLTAGE

Profile = dict[str, Any]


class Profiles:
    """Charging profiles of all outlets. Number 0 stands for the whole station.

    Args:
        id_field: `chargingProfileId` in 1.6, `id` in 2.x.
    """

    def __init__(self, id_field: str) -> None:
        self._id_field = id_field
        self._profiles: dict[int, tuple[int, Profile]] = {}

    def put(self, outlet: int, profile: Profile) -> None:
        """Install a profile, in place of one with the same id, or with the same purpose and stack level there."""
        for known_id, (where, known) in list(self._profiles.items()):
            if where == outlet and _rank(known) == _rank(profile):
                del self._profiles[known_id]
        self._profiles[int(profile[self._id_field])] = (outlet, profile)

    def drop(self, outlet: int) -> None:
        """The transaction has ended, and its profiles with it."""
        for profile_id, (where, profile) in list(self._profiles.items()):
            if where == outlet and profile.get("chargingProfilePurpose") == "TxProfile":
                del self._profiles[profile_id]

    def clear(self, profile_id: int | None, outlet: int | None, purpose: str | None, stack_level: int | None) -> int:
        """Remove the profiles that meet all criteria that are given; returns how many."""
        found = [
            known_id
            for known_id, (where, profile) in self._profiles.items()
            if (profile_id is None or known_id == profile_id)
            and (outlet is None or where == outlet)
            and (purpose is None or profile.get("chargingProfilePurpose") == purpose)
            and (stack_level is None or profile.get("stackLevel") == stack_level)
        ]
        for known_id in found:
            del self._profiles[known_id]
        return len(found)

    def matching(self, outlet: int | None, criteria: dict[str, Any]) -> list[tuple[int, Profile]]:
        """Outlets and profiles for a report. Spec: OCPP 2.0.1 K09."""
        ids = criteria.get("chargingProfileId")
        return [
            (where, profile)
            for profile_id, (where, profile) in sorted(self._profiles.items())
            if (outlet is None or where == outlet)
            and (not ids or profile_id in ids)
            and criteria.get("chargingProfilePurpose") in (None, profile.get("chargingProfilePurpose"))
            and criteria.get("stackLevel") in (None, profile.get("stackLevel"))
        ]

    def limit_w(self, outlet: int, now: float) -> float:
        """The lowest limit that holds for the outlet now; infinite without any."""
        limits = [_limit_w(profile, now) for where, profile in self._profiles.values() if where in (0, outlet)]
        return min(limits, default=math.inf)

    def __len__(self) -> int:
        return len(self._profiles)


def _rank(profile: Profile) -> tuple[Any, Any]:
    return profile.get("chargingProfilePurpose"), profile.get("stackLevel")


def _limit_w(profile: Profile, now: float) -> float:
    schedules = profile.get("chargingSchedule")
    schedule = schedules[0] if isinstance(schedules, list) and schedules else schedules
    if not isinstance(schedule, dict):
        return math.inf
    start = schedule.get("startSchedule")
    elapsed = now - timestamp_ms(parse_timestamp(start)) / 1000 if isinstance(start, str) else 0.0
    duration = schedule.get("duration")
    if elapsed < 0 or (isinstance(duration, int) and elapsed > duration):
        return math.inf
    limit = math.inf
    for period in schedule.get("chargingSchedulePeriod", []):
        if period.get("startPeriod", 0) <= elapsed and "limit" in period:
            limit = float(period["limit"])
            if schedule.get("chargingRateUnit") == "A":
                limit *= GRID_VOLTAGE * int(period.get("numberPhases", 3))
    return limit
