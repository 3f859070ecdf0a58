"""What was noticed about a session: facts for people who look into a bill, never a reason to refuse a message."""

from __future__ import annotations


class Flag:
    """Bits of a mask, plain integers. Stored as a mask in the fold's state and by name in tables and events."""

    TIMESTAMP_UNREADABLE = 1 << 0
    """A timestamp could not be read; the receive time stands in for it."""
    CLOCK_IMPLAUSIBLE = 1 << 1
    """A time in the future or before 2015 on a frame that may have been buffered; it was kept."""
    CLOCK_SHIFTED = 1 << 2
    """The station's clock was wrong on live frames; its times were shifted by the difference."""
    CLOCK_ZONE = 1 << 3
    """The station labels local time as UTC; its times were shifted by the zone's offset."""
    CLOCK_JUMPED = 1 << 4
    """A later register has an earlier time; the register's order counts."""
    REGISTER_FELL = 1 << 5
    """The register fell within the session (exchanged, reset, wrapped): the energy is the sum of positive pieces."""
    REGISTER_GLITCH = 1 << 6
    """A reading far off between two that fit was left out."""
    REGISTER_OUTLIER = 1 << 7
    """A reading below the register's begin within a monotonic stretch was left out."""
    REGISTER_RESTARTED = 1 << 8
    """The register began below where the session before ended: restarted per session, exchanged or reset."""
    REGISTER_MOVED = 1 << 9
    """Registers of another place (or other phases) than the session's were left out."""
    METER_STOP_INVALID = 1 << 10
    """`meterStop` is 0 or below `meterStart`: the last good register counts."""
    POWER_IMPLAUSIBLE = 1 << 11
    """Energy over time exceeds what the station can deliver: a wrong unit or multiplier is likely."""
    ENERGY_IMPLAUSIBLE = 1 << 12
    """Less than 1 W on average although the station reported that it charges."""
    UNIT_BY_QUIRK = 1 << 13
    """Registers without a unit were read in the unit that the station's configuration names."""
    VALUE_UNREADABLE = 1 << 14
    """A value or unit could not be read; it is kept as it was sent."""
    SEQ_NO_CONFLICT = 1 << 15
    """Two events with one seqNo and different content: both are kept."""
    STOP_CONFLICT = 1 << 16
    """Two stops with different content: the first counts, both are kept."""
    GAP = 1 << 17
    """Final although events are missing: the station did not deliver them in time."""
    START_MISSING = 1 << 18
    """No Started or StartTransaction has been seen."""
    STOP_MISSING = 1 << 19
    """Closed without an Ended or StopTransaction."""
    CLOSED_BY_NEXT_START = 1 << 20
    """Closed because another transaction began on its connector."""
    CLOSED_BY_WATCHDOG = 1 << 21
    """Closed because nothing was heard of it for too long."""
    REOPENED = 1 << 22
    """Something was heard after it had been closed for want of news."""
    LATE_STOP = 1 << 23
    """The stop came after the session had been closed without one; the stop counts."""
    MATCHED_WITHOUT_ID = 1 << 24
    """A message without the transaction's id was matched by connector, meter and time."""
    UNAUTHORIZED = 1 << 25
    """The id token was not accepted at the start."""
    SIGNED_MISMATCH = 1 << 26
    """The signed register differs from the one beside it."""
    SIGNED_UNREADABLE = 1 << 27
    """There is signed data in a format that is not read here; it is kept byte for byte."""
    PUBLIC_KEY_CHANGED = 1 << 28
    """The meter's public key is another one than before."""
    TRANSACTION_ID_REUSED = 1 << 29
    """The station used the transaction's id before, for another transaction."""
    OFFLINE = 1 << 30
    """At least one event was buffered while the station was offline."""
    UNREADABLE = 1 << 31
    """The message lacked something that it must have; it is kept as it was sent."""


_BITS = {bit: name.lower() for name, bit in vars(Flag).items() if isinstance(bit, int)}
_names: dict[int, list[str]] = {}


def flag_names(mask: int) -> list[str]:
    """The names of the flags in a mask, in lower case, lowest bit first."""
    found = _names.get(mask)
    if found is None:
        found = _names[mask] = [name for bit, name in _BITS.items() if mask & bit]
    return found
