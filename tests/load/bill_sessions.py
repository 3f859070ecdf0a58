"""Replay real charging sessions through the sockets with three kinds of tariffs, and see that every bill is right.

    python tests/load/bill_sessions.py SESSIONS.csv [--versions 1.6 2.0.1] [--chaos] [--run-file .busbar/run.json]

The file and the replay are those of `replay_sessions.py`. Stations take turns with the tariffs: one by energy with a
fee, one with a price by day and another by night, one by time in steps with a minimum. What each session costs is
worked out here a second time, from the file and in exact fractions, without the pricing engine. The sum of all records
of each session, credits taken off, must be the same to the last decimal. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from busbar.local.runfile import RunFile
from busbar.ocpp.versions import Version
from tests.load.billing import CONFIGURED_SECONDS, Charged, charged, post
from tests.load.replay_client import Chaos, Counts, ReplayStation, WrongAnswer
from tests.load.replay_sessions import (
    CHAOS,
    ZONE,
    Replay16,
    Replay201,
    Session,
    _shares,
    _whole,
    command_line,
    pieces,
    read_sessions,
    system,
)

DAY, NIGHT = (7, Decimal("0.45")), (21, Decimal("0.29"))
"""Local hours at which a price per kWh begins."""


def _component(kind: str, price: str, vat: str, step: int = 1) -> dict[str, Any]:
    return {"type": kind, "price": Decimal(price), "vat": Decimal(vat), "step_size": step}


def _tariff(currency: str, *elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"currency": currency, "tax_included": "NO", "elements": list(elements), **more}


TARIFFS = {
    "energy": _tariff(
        "CHF", {"price_components": [_component("ENERGY", "0.37", "8.1"), _component("FLAT", "0.5", "8.1")]}
    ),
    "night": _tariff(
        "EUR",
        {
            "price_components": [_component("ENERGY", str(DAY[1]), "20")],
            "restrictions": {"start_time": "07:00", "end_time": "21:00"},
        },
        {"price_components": [_component("ENERGY", str(NIGHT[1]), "20")]},
    ),
    "time": _tariff(
        "JPY",
        {"price_components": [_component("TIME", "600", "10", 300)]},
        min_price={"before_taxes": Decimal(150), "after_taxes": Decimal(165)},
    ),
}
_DIGITS = {"energy": 2, "night": 2, "time": 0}


def expected(kind: str, session: Session, version: Version, samples: int) -> tuple[Decimal, Decimal]:
    """What a session costs before and after tax, by another way than the engine's."""
    if kind == "energy":
        energy_wh = ceil(_energy(session, version))  # steps of 1 Wh: registers of 2.x have fractions of it
        before = Fraction(energy_wh, 1000) * Fraction("0.37") + Fraction("0.5")
        after = before * Fraction("1.081")
    elif kind == "night":
        before = _by_hours(session, version, samples)
        after = before * Fraction("1.2")
    else:
        seconds = ceil((session.end - session.begin).total_seconds() / 300) * 300
        before = max(Fraction(seconds * 600, 3600), Fraction(150))
        after = max(Fraction(seconds * 600, 3600) * Fraction("1.1"), Fraction(165))
    return _rounded(before, _DIGITS[kind]), _rounded(after, _DIGITS[kind])


def _register(register: Decimal, version: Version) -> Decimal:
    return _whole(register) if version is Version.V16 else register


def _energy(session: Session, version: Version) -> Decimal:
    return _register(session.register_end_wh, version) - _register(session.register_begin_wh, version)


def _by_hours(session: Session, version: Version, samples: int) -> Fraction:
    """By day and by night, from register to register."""
    total, last = Fraction(0), Fraction(0)
    marks = []
    for share in (0.0, *_shares(samples), 1.0):
        moment, register = session.at(share)
        at = datetime.fromisoformat(moment)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # clocks tell milliseconds
        marks.append((at, _register(register, version)))
    for (begin, low), (end, high) in pairwise(marks):
        length = Fraction((end - begin) / timedelta(milliseconds=1)).limit_denominator(1)
        for start, stop, price in _stretches(begin, end):
            part = Fraction((stop - start) / timedelta(milliseconds=1)).limit_denominator(1)
            of_it = part / length if length else Fraction(1)
            total += Fraction(high - low) / 1000 * of_it * Fraction(price)
            last = Fraction(price) if high > low else last
    energy_wh = _energy(session, version)
    return total + Fraction(ceil(energy_wh) - energy_wh) / 1000 * last  # the step of 1 Wh, at the last price


def _stretches(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, Decimal]]:
    """A stretch of time cut where the price changes, by the site's wall clock."""
    cuts = [begin]
    day = begin.astimezone(ZONE).date()
    while day <= end.astimezone(ZONE).date():
        for hour in (DAY[0], NIGHT[0]):
            cut = datetime(day.year, day.month, day.day, hour, tzinfo=ZONE).astimezone(UTC)
            if begin < cut < end:
                cuts.append(cut)
        day += timedelta(days=1)
    cuts.append(end)
    for start, stop in pairwise(cuts):
        by_day = DAY[0] <= start.astimezone(ZONE).hour < NIGHT[0]
        yield start, stop, (DAY if by_day else NIGHT)[1]


def _rounded(value: Fraction, digits: int) -> Decimal:
    """Half up."""
    return Decimal(floor(value * 10**digits + Fraction(1, 2))).scaleb(-digits)


async def replay(run: RunFile, options: argparse.Namespace, version: Version) -> bool:
    """Replay everything in one version and judge the bills. Returns whether all is well."""
    counts, name = Counts(), f"BS{version.label}{int(time.time()) % 10**7}"
    chaos = CHAOS if options.chaos else Chaos()
    urls = [edge.url for edge in run.edges]
    post(run, "/v1/tokens", {"id_token": name, "allow_concurrent": True, "max_concurrent": 10_000})
    for kind, tariff in TARIFFS.items():
        tariff_id = f"{name}-{kind}"
        post(run, "/v1/tariffs", tariff | {"id": tariff_id})
        post(run, "/v1/sites", {"site_id": tariff_id, "time_zone": str(ZONE), "country_code": "CH"})
        post(run, "/v1/tariff-assignments", {"tariff_id": tariff_id, "scope": "site", "subject": tariff_id})
    jobs = []
    for number, piece in enumerate(pieces(read_sessions(options.file, options.limit), options.stations)):
        station_id, kind = f"{name}-{number}", list(TARIFFS)[number % len(TARIFFS)]
        password = post(run, "/v1/stations", {"station_id": station_id, "site_id": f"{name}-{kind}"})["password"]
        random = Random(f"{options.seed}/{version}/{number}")
        station = ReplayStation(station_id, password, version, urls, random=random, chaos=chaos, counts=counts)
        told = (Replay16 if version is Version.V16 else Replay201)(station, name, options.samples)
        jobs.append((told, station, kind, piece))
    await asyncio.sleep(CONFIGURED_SECONDS)
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for told, station, _, piece in jobs:
            group.create_task(_run(told, station, piece))
    count = sum(len(piece) for *_, piece in jobs)
    seconds = time.monotonic() - begin
    print(f"OCPP {version}: {count} sessions in {counts.calls} CALLs and {seconds:.1f} s", flush=True)
    found = await charged(run.postgres.url, [station.station_id for _, station, *_ in jobs], count, options.patience)
    return judge(version, [(station.station_id, kind, piece) for _, station, kind, piece in jobs], found, options)


async def _run(told: Replay16 | Replay201, station: ReplayStation, piece: Sequence[Session]) -> None:
    await told.boot()
    await told.run(piece)
    await station.close()


def judge(
    version: Version,
    jobs: Sequence[tuple[str, str, Sequence[Session]]],
    found: Sequence[Charged],
    options: argparse.Namespace,
) -> bool:
    """Compare each session, and the sums."""
    by_place = {(each.station_id, each.started_ms): each for each in found}
    sums: dict[str, list[Decimal]] = {kind: [Decimal(0)] * 4 for kind in TARIFFS}
    problems: list[str] = []
    for station_id, kind, piece in jobs:
        for session in piece:
            wanted = tuple(expected(kind, session, version, options.samples))
            got = by_place.get((station_id, int(session.begin.timestamp() * 1000)))
            paid = (None, None) if got is None else (got.excl, got.incl)
            if paid != wanted:
                state = "nothing" if got is None else f"{got.status} {paid[0]} {paid[1]} for {got.energy_wh} Wh"
                problems.append(
                    f"{station_id} {session.name} ({kind}): {wanted[0]} {wanted[1]} expected, {state} found"
                )
            for place, amount in enumerate((*wanted, *paid)):
                sums[kind][place] += amount or 0
    if len(found) != sum(len(piece) for *_, piece in jobs):
        problems.append(f"billing has {len(found)} sessions")
    statuses = Counter(each.status for each in found)
    corrected = sum(each.records > 1 for each in found)
    print(f"  {dict(statuses)}, {corrected} corrected")
    for kind, (excl, incl, net_excl, net_incl) in sums.items():
        print(f"  {kind:8} expected {excl} / {incl}, records come to {net_excl} / {net_incl}")
    for problem in problems[:20]:
        print(f"  WRONG {problem}")
    if len(problems) > 20:
        print(f"  WRONG and {len(problems) - 20} more")
    return not problems


async def main(options: argparse.Namespace) -> int:
    good = True
    async with system(options.run_file) as run:
        for name in options.versions:
            try:
                good = await replay(run, options, Version(name)) and good
            except* WrongAnswer as group:
                good = False
                for error in group.exceptions:
                    print(f"  WRONG {error}")
    print("verdict: every bill is right" if good else "verdict: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    parser = command_line(__doc__ or "")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for billing to end")
    sys.exit(asyncio.run(main(parser.parse_args())))
