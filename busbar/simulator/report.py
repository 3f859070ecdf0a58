"""The figures of a fleet as lines for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from busbar.simulator.tally import Tally


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which this share of the values lies; `None` of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def progress_line(tally: Tally, *, online: int, stations: int, charging: int, speed: float) -> str:
    """One line about how it goes."""
    parts = [
        f"{online}/{stations} online",
        f"{tally.calls} sent",
        f"{tally.answered} answered",
        f"{tally.wrong} wrong",
        f"{charging} charging",
        f"{tally.sessions_ended} ended",
        f"{tally.energy_wh / 1000:.1f} kWh",
        f"reply p50 {_milliseconds(tally, 0.5, speed)} p99 {_milliseconds(tally, 0.99, speed)}",
    ]
    return "  ".join(parts)


def summary(tally: Tally, *, stations: int, speed: float, seconds: float) -> dict[str, Any]:
    """Everything that was counted."""
    p50, p99 = percentile(tally.latencies, 0.5), percentile(tally.latencies, 0.99)
    return {
        "stations": stations,
        "seconds": round(seconds, 3),
        "connects": tally.connects,
        "connects_failed": tally.connects_failed,
        "boots": dict(tally.boots),
        "sent": dict(tally.sent),
        "sent_total": tally.calls,
        "answered": tally.answered,
        "unanswered": tally.unanswered,
        "discarded": tally.discarded,
        "call_errors": dict(tally.call_errors),
        "commands": dict(tally.commands),
        "refused_commands": dict(tally.refused_commands),
        "sessions_started": tally.sessions_started,
        "sessions_ended": tally.sessions_ended,
        "authorizations_refused": tally.authorizations_refused,
        "energy_kwh": round(tally.energy_wh / 1000, 3),
        "reply_seconds_p50": None if p50 is None else round(p50 / speed, 6),
        "reply_seconds_p99": None if p99 is None else round(p99 / speed, 6),
        "wrong": tally.wrong,
        "faults": list(tally.faults),
    }


def summary_lines(tally: Tally, *, stations: int, speed: float, seconds: float) -> list[str]:
    """The same for people; what was wrong comes last, where it is seen."""
    lines = [
        f"{stations} stations, {seconds:.1f} s at {speed:g} times the speed of life",
        f"connected {tally.connects} times, {tally.connects_failed} attempts failed",
        f"sent {tally.calls}: answered {tally.answered}, unanswered {tally.unanswered}, CALLERRORs {tally.errors},"
        f" given up {tally.discarded}",
        f"commands answered {sum(tally.commands.values())}, of them refused {sum(tally.refused_commands.values())}",
        f"sessions started {tally.sessions_started}, ended {tally.sessions_ended}, cards refused"
        f" {tally.authorizations_refused}, energy {tally.energy_wh / 1000:.3f} kWh",
        f"reply time p50 {_milliseconds(tally, 0.5, speed)}, p99 {_milliseconds(tally, 0.99, speed)}",
    ]
    lines += [f"  {action} {count}" for action, count in sorted(tally.sent.items())]
    lines.append(f"wrong: {tally.wrong}")
    lines += [f"  {fault}" for fault in tally.faults]
    return lines


def _milliseconds(tally: Tally, share: float, speed: float) -> str:
    value = percentile(tally.latencies, share)
    return "-" if value is None else f"{value / speed * 1000:.1f} ms"
