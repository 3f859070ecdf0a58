"""Registers from one session to the next: energy that flowed outside of any is found here.

Each EVSE has a meter that only counts up. What lies between the end of one session and the begin of the next is a
*gap*: unattributed energy. It is taken back as far as a session that comes late, or a late stop, explains it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST_GAPS = 16


@dataclass(slots=True)
class Continuity:
    """The register of one EVSE, as far as sessions have accounted for it. All in micro-Wh."""

    covered_uwh: int | None = None
    """The register up to which everything is accounted for, gaps included."""
    newest_ms: int = 0
    """Begin of the newest session."""
    gaps: list[list[int]] = field(default_factory=list)
    """[from, to] of the unattributed energy that a late session could still explain, oldest first."""


Change = tuple[int, int, int]
"""(energy, from, to): unattributed energy that was found, or, negative, taken back."""


def begin_session(continuity: Continuity, started_ms: int, register_uwh: int) -> tuple[list[Change], bool]:
    """A session begins. Returns what is now unattributed, and whether the register began anew."""
    if started_ms < continuity.newest_ms:
        return [], False  # one that comes late: only what it covers matters
    continuity.newest_ms = started_ms
    covered = continuity.covered_uwh
    continuity.covered_uwh = register_uwh
    if covered is None or covered == register_uwh:
        return [], False
    if register_uwh > covered:
        continuity.gaps.append([covered, register_uwh])
        del continuity.gaps[:-_MOST_GAPS]
        return [(register_uwh - covered, covered, register_uwh)], False
    continuity.gaps.clear()
    return [], True


def cover_session(continuity: Continuity, started_ms: int, begin_uwh: int, end_uwh: int, *, fell: bool) -> list[Change]:
    """A session covers the registers from its begin to its end. Returns what is no longer unattributed."""
    if fell:
        if started_ms >= continuity.newest_ms:
            continuity.covered_uwh = end_uwh
            continuity.gaps.clear()
        return []
    changes: list[Change] = []
    left = []
    for low, high in continuity.gaps:
        first, last = max(low, begin_uwh), min(high, end_uwh)
        if first >= last:
            left.append([low, high])
            continue
        changes.append((first - last, first, last))
        left += [gap for gap in ([low, first], [last, high]) if gap[0] < gap[1]]
    continuity.gaps = left
    if started_ms >= continuity.newest_ms and end_uwh > (continuity.covered_uwh or 0):
        continuity.covered_uwh = end_uwh
    return changes
