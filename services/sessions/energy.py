"""The energy of a session: what its registers say, and on which rung of the ladder that rests.

All energies are integers in micro-Wh. Readings may come late, twice and in any order: a series of registers is kept as
the stretches in which it rises, and a reading that fits into one changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.sessions.flags import Flag
from services.sessions.samples import Reading

TOLERANCE_UWH = 1_000_000
"""Registers of one meter may disagree by less than this: `meterStart` and `meterStop` are cut to whole Wh."""

_GRACE_MS = 10_000
"""Between two readings at least so much time may have passed: their timestamps are rounded."""

_MOST_STRETCHES = 32
_BOUND = 10**18
"""1 TWh: more than any sum of sound values, and it fits into 64 bits."""

RUNGS = (
    "signed",
    "transaction_registers",
    "meter_start_stop",
    "samples",
    "intervals",
    "power_integral",
    "none",
)
"""From what a bill may rest on without question down to what nobody should be billed for."""

Stretch = list[int]
"""[first position, first register, last position, last register]: the register rises from one to the other."""


@dataclass(slots=True)
class Energy:
    """What the meter values of one session add up to."""

    stretches: list[Stretch] = field(default_factory=list)
    """One in a sound session. Each further one begins where the register fell."""
    older_uwh: int = 0
    """The rise of stretches that are no longer kept one by one, because the register fell too often."""
    readings: int = 0
    """Register readings that the stretches are made of."""
    location: str = ""
    """Where the register is measured; readings of other places are left out."""
    begin_uwh: int | None = None
    """Register of context Transaction.Begin."""
    begin_position: int = 0
    end_uwh: int | None = None
    """Register of context Transaction.End."""
    end_position: int = 0
    meter_start_uwh: int | None = None
    meter_stop_uwh: int | None = None
    signed_begin_uwh: int | None = None
    signed_end_uwh: int | None = None
    interval_uwh: int = 0
    intervals: int = 0
    power_area: int = 0
    """Twice the integral of power over time, in mW x s."""
    power_at_ms: int = 0
    power_uw: int | None = None
    """The last power."""
    total_uwh: int = 0
    """Result: the energy so far."""
    rung: str = "none"
    """Result: what it rests on."""
    register_begin_uwh: int | None = None
    """Result: the register that it is counted from."""
    register_end_uwh: int | None = None
    """Result: the register that it is counted to."""

    @property
    def fell(self) -> bool:
        """Whether the register fell within the session."""
        return len(self.stretches) > 1 or self.older_uwh > 0

    @property
    def last_register_uwh(self) -> int | None:
        """The latest good register."""
        return self.stretches[-1][3] if self.stretches else None


def position(at_ms: int, rank: int) -> int:
    """Orders readings: by time, and at one time Begin before Periodic and Clock before End."""
    return at_ms * 4 + rank


def add_reading(
    energy: Energy, reading: Reading, at_ms: int, *, max_power_w: int, unit_factor: int = 1, is_newest: bool = True
) -> int:
    """Fold one reading into the energy. Returns flags.

    Args:
        at_ms: The time we go by.
        unit_factor: For registers that came without a unit.
        is_newest: Whether the station sent it after everything else, whatever its time says.
    """
    flags = 0
    register = reading.register_uwh
    if register is not None:
        if unit_factor != 1 and reading.unit_assumed:
            register *= unit_factor
            flags |= Flag.UNIT_BY_QUIRK
        if reading.location != energy.location:
            if energy.location and reading.location:
                return flags | Flag.REGISTER_MOVED
            energy.location = energy.location or reading.location
        flags |= add_register(energy, at_ms * 4 + reading.rank, register, max_power_w, is_newest=is_newest)
        if reading.rank == 0:
            _note_begin(energy, at_ms * 4, register)
        elif reading.rank == 2:
            _note_end(energy, at_ms * 4, register)
    if reading.interval_uwh is not None:
        energy.interval_uwh = _bounded(energy.interval_uwh + reading.interval_uwh)
        energy.intervals += 1
    if reading.power_uw is not None and at_ms >= energy.power_at_ms:
        if energy.power_uw is not None:
            area = (energy.power_uw + reading.power_uw) * (at_ms - energy.power_at_ms) // 1_000_000
            energy.power_area = _bounded(energy.power_area + area)
        energy.power_uw, energy.power_at_ms = reading.power_uw, at_ms
    return flags


def _bounded(total: int) -> int:
    return max(-_BOUND, min(total, _BOUND))


def _note_begin(energy: Energy, at: int, register: int) -> None:
    if energy.begin_uwh is None or at < energy.begin_position:
        energy.begin_uwh, energy.begin_position = register, at


def _note_end(energy: Energy, at: int, register: int) -> None:
    if energy.end_uwh is None or at >= energy.end_position:
        energy.end_uwh, energy.end_position = register, at


def add_register(energy: Energy, at: int, register: int, max_power_w: int, *, is_newest: bool = True) -> int:
    """Fold a register at a `position` into the series. Returns flags."""
    stretches = energy.stretches
    if not stretches:
        stretches.append([at, register, at, register])
        energy.readings = 1
        return 0
    last = stretches[-1]
    if at >= last[2] and register >= last[3]:
        energy.readings += 1
        # Integers of micro-Wh and quarter milliseconds: 3.6 micro-Wh in a millisecond are one watt.
        leap = (register - last[3]) * 18 > max_power_w * 5 * ((at - last[2]) // 4 + _GRACE_MS)
        if leap and len(stretches) > 1 and register >= stretches[-2][3]:
            # Back where it was before it fell, faster than any station can deliver: what lies between was no register.
            stretches.pop()
            last = stretches[-1]
            leap = False
            last[2], last[3] = at, register
            return Flag.REGISTER_GLITCH
        last[2], last[3] = at, register
        return Flag.POWER_IMPLAUSIBLE if leap else 0
    return _insert(energy, at, register, is_newest)


def _insert(energy: Energy, at: int, register: int, is_newest: bool) -> int:
    """Fold a register that does not simply continue the series."""
    stretches = energy.stretches
    energy.readings += 1
    index = next((i for i, stretch in enumerate(stretches) if at <= stretch[2]), len(stretches))
    before = stretches[index - 1] if index else None
    within = stretches[index] if index < len(stretches) else None
    if within is not None and at >= within[0]:
        return _place_within(energy, index, at, register, is_newest)
    if before is not None and register > before[3] - TOLERANCE_UWH:
        before[2], before[3] = at, max(register, before[3])
        return 0
    if within is not None and register < within[1] + TOLERANCE_UWH:
        within[0], within[1] = at, min(register, within[1])
        return 0
    if is_newest and before is None and within is not None and len(stretches) == 1 and register >= within[3]:
        within[3] = register
        return Flag.CLOCK_JUMPED
    _split(energy, index, at, register)
    return Flag.REGISTER_FELL


def _split(energy: Energy, index: int, at: int, register: int) -> None:
    """A stretch of its own, before the one at `index`."""
    stretches = energy.stretches
    stretches.insert(index, [at, register, at, register])
    if len(stretches) > _MOST_STRETCHES:
        oldest = stretches.pop(0)
        energy.older_uwh = _bounded(energy.older_uwh + oldest[3] - oldest[1])


def _place_within(energy: Energy, index: int, at: int, register: int, is_newest: bool) -> int:
    """Fold a register whose time lies within a stretch."""
    stretch = energy.stretches[index]
    if register > stretch[3]:
        if is_newest:
            stretch[3] = register
            return Flag.CLOCK_JUMPED
        last_at, last = stretch[2], stretch[3]
        stretch[2], stretch[3] = at, register
        _split(energy, index + 1, last_at, last)
        return Flag.REGISTER_FELL
    if register < stretch[1] - TOLERANCE_UWH:
        energy.readings -= 1
        return Flag.REGISTER_OUTLIER
    return 0


def add_meter_start(energy: Energy, at_ms: int, register_uwh: int, max_power_w: int) -> int:
    """`meterStart` of 1.6."""
    energy.meter_start_uwh = register_uwh
    return add_register(energy, position(at_ms, 0), register_uwh, max_power_w)


def add_meter_stop(energy: Energy, at_ms: int, register_uwh: int, max_power_w: int) -> int:
    """`meterStop` of 1.6. One that is 0 or below `meterStart`, as after a reboot, says nothing."""
    start = energy.meter_start_uwh
    if register_uwh < (start or 0) or (register_uwh == 0 and energy.last_register_uwh):
        return Flag.METER_STOP_INVALID
    flags = add_register(energy, position(at_ms, 2), register_uwh, max_power_w)
    energy.meter_stop_uwh = register_uwh
    return flags


def settle(energy: Energy) -> None:
    """Work out the result: the highest rung of the ladder that both ends of the session stand on."""
    stretches = energy.stretches
    if len(stretches) == 1 and energy.end_uwh is None and energy.meter_stop_uwh is None and energy.readings > 1:
        _, begin, _, end = stretches[0]
        rung = "samples"
    else:
        begin, end, rung = _ends(energy)
    if energy.signed_end_uwh is not None and energy.signed_begin_uwh is not None:
        signed = energy.signed_end_uwh - energy.signed_begin_uwh
        if signed >= 0:
            begin, end, rung = energy.signed_begin_uwh, energy.signed_end_uwh, "signed"
    energy.rung = rung
    if rung in ("signed", "transaction_registers", "meter_start_stop"):
        energy.total_uwh = end - begin
    elif rung == "samples":
        rises = sum(stretch[3] - stretch[1] for stretch in stretches)
        energy.total_uwh = _bounded(rises + energy.older_uwh)
    elif rung == "intervals":
        energy.total_uwh = energy.interval_uwh
    elif rung == "power_integral":
        energy.total_uwh = energy.power_area * 1_000 // 7_200
    else:
        energy.total_uwh = 0
    has_register = bool(stretches) or rung == "signed"
    energy.register_begin_uwh = begin if has_register else None
    energy.register_end_uwh = end if has_register else None


def _ends(energy: Energy) -> tuple[int, int, str]:
    """The registers that the energy is counted between, and the rung, signed ones apart."""
    stretches = energy.stretches
    if not energy.fell:
        if energy.begin_uwh is not None and energy.end_uwh is not None and energy.end_uwh >= energy.begin_uwh:
            return energy.begin_uwh, energy.end_uwh, "transaction_registers"
        if energy.meter_start_uwh is not None and energy.meter_stop_uwh is not None:
            return energy.meter_start_uwh, energy.meter_stop_uwh, "meter_start_stop"
    begin, end = (stretches[0][1], stretches[-1][3]) if stretches else (0, 0)
    if energy.readings > 1:
        return begin, end, "samples"
    if energy.intervals:
        return begin, end, "intervals"
    return begin, end, "power_integral" if energy.power_area else "none"
