"""Replay real charging sessions through the sockets with three kinds of tariffs, and see that every bill is right.

    python tests/load/bill_sessions.py SESSIONS.csv [--versions 1.6 2.0.1] [--chaos] [--run-file .busbar/run.json]
    python tests/load/bill_sessions.py SESSIONS.csv --chaos --kill --rebuild

The file and the replay are those of `replay_sessions.py`. Stations take turns with the tariffs: one by energy with a
fee, one with a price by day and another by night, one by time in steps with a minimum. What each session costs is
worked out here a second time, from the file and in exact fractions, without the pricing engine. The sum of all records
of each session, credits taken off, must be the same to the last decimal. Each session has one record that stands, and
`csms.cdrs` holds what the table does. Exits with 1 on any difference.

With `--kill`, processes of sessions and of billing, two of each, get SIGKILL in turn as long as the replay goes on.
With `--rebuild`, two rebuilds follow. A billing with empty tables folds everything from offset 0, which must lead to
the same records byte for byte. Then sessions with empty tables do so, and tell billing all their events a second time:
no record may be added or changed. Both are for a stack of the script's own, and with `--kill` rebuilds are killed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from tests.load.cdr_check import Kept, caught_up, kept
from tests.load.own_stack import OwnStack, own_stack
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
REBUILD_KILL_SECONDS = 15.0
"""For so long a rebuild is killed again and again."""
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


@dataclass(frozen=True, slots=True)
class Job:
    """A station, its tariff and what it replays."""

    told: Replay16 | Replay201
    station: ReplayStation
    kind: str
    sessions: Sequence[Session]

    async def run(self) -> None:
        await self.told.boot()
        await self.told.run(self.sessions)
        await self.station.close()


def configure(run: RunFile, options: argparse.Namespace, version: Version, counts: Counts) -> list[Job]:
    """Tariffs, sites and stations of one version."""
    name = f"BS{version.label}{int(time.time()) % 10**7}"
    chaos = replace(CHAOS if options.chaos else Chaos(), late=options.kill)
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
        jobs.append(Job(told, station, kind, piece))
    return jobs


async def replay(
    run: RunFile, own: OwnStack | None, options: argparse.Namespace, version: Version
) -> tuple[bool, list[str]]:
    """Replay everything in one version and judge the bills. Returns whether all is well, and the stations."""
    counts = Counts()
    jobs = configure(run, options, version, counts)
    stations = [job.station.station_id for job in jobs]
    await asyncio.sleep(CONFIGURED_SECONDS)
    begin = time.monotonic()
    async with contextlib.AsyncExitStack() as trouble:
        if own is not None and options.kill:
            await trouble.enter_async_context(own.killing(("billing", "sessions"), f"{options.seed}/{version}"))
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job.run())
        seconds = time.monotonic() - begin
    count = sum(len(job.sessions) for job in jobs)
    print(f"OCPP {version}: {count} sessions in {counts.calls} CALLs and {seconds:.1f} s", flush=True)
    if counts.duplicates or counts.reconnects or counts.reordered:
        print(
            f"  {counts.duplicates} CALLs sent twice, {counts.reconnects} broken connections,"
            f" {counts.reordered} offline queues in disorder"
        )
    if own is not None:
        tell_kills(own)
        await caught_up(run, options.patience)
    found = await charged(run.postgres.url, stations, count, options.patience)
    good = judge(version, jobs, found, options)
    return told_once(await kept(run, stations)) and good, stations


def tell_kills(own: OwnStack) -> None:
    """Say who was killed since the last time, and who has ended without."""
    if own.kills:
        print("  SIGKILL: " + ", ".join(f"{count} of {service}" for service, count in sorted(own.kills.items())))
        own.kills.clear()
    for line in own.by_itself():
        print(f"  by itself: {line}")
    own.said.clear()


def told_once(found: Kept) -> bool:
    """Whether each session has one record, and the topic holds what the table does."""
    print(
        f"  {len(found.rows)} records and credits in the table, {len(found.told)} on csms.cdrs in {found.copies} copies"
    )
    tell(found.problems)
    return not found.problems


def tell(problems: Sequence[str]) -> None:
    """Print the first of them, each of the length of a few lines."""
    for problem in problems[:20]:
        print(f"  WRONG {problem[:600]}")
    if len(problems) > 20:
        print(f"  WRONG and {len(problems) - 20} more")


async def rebuild(own: OwnStack, service: str, stations: Sequence[str], options: argparse.Namespace) -> bool:
    """Have a service with empty tables fold everything from offset 0; whether all records are as they were."""
    run = own.system.run
    before = await kept(run, stations)
    begin = time.monotonic()
    await own.forget(service)
    await own.system.start_service(service)
    async with contextlib.AsyncExitStack() as trouble:
        if options.kill:
            await trouble.enter_async_context(own.killing(("billing", service), f"{options.seed}/rebuild"))
            await asyncio.sleep(REBUILD_KILL_SECONDS)
    await caught_up(run, options.patience)
    after = await kept(run, stations)
    print(f"rebuild of {service} from offset 0: {time.monotonic() - begin:.1f} s")
    tell_kills(own)
    good = told_once(after)
    problems = list(before.differences(after))
    tell(problems)
    same = sum(after.rows.get(key) == row for key, row in before.rows.items())
    print(f"  {same} of {len(before.rows)} records are the same, byte for byte")
    return good and not problems


def judge(
    version: Version,
    jobs: Sequence[Job],
    found: Sequence[Charged],
    options: argparse.Namespace,
) -> bool:
    """Compare each session, and the sums."""
    by_place = {(each.station_id, each.started_ms): each for each in found}
    sums: dict[str, list[Decimal]] = {kind: [Decimal(0)] * 4 for kind in TARIFFS}
    problems: list[str] = []
    for job in jobs:
        station_id, kind = job.station.station_id, job.kind
        for session in job.sessions:
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
    if len(found) != sum(len(job.sessions) for job in jobs) or len(found) != len(by_place):
        problems.append(f"billing has {len(found)} sessions, {len(by_place)} of them with a begin of their own")
    statuses = Counter(each.status for each in found)
    corrected = sum(each.records > 1 for each in found)
    print(f"  {dict(statuses)}, {corrected} corrected")
    for kind, (excl, incl, net_excl, net_incl) in sums.items():
        print(f"  {kind:8} expected {excl} / {incl}, records come to {net_excl} / {net_incl}")
    tell(problems)
    return not problems


async def main(options: argparse.Namespace) -> int:
    good = True
    stations: list[str] = []
    async with contextlib.AsyncExitStack() as exits:
        own: OwnStack | None = None
        if options.kill or options.rebuild:
            own = await exits.enter_async_context(own_stack(edge=2, sessions=2, billing=2))
            run = own.system.run
        else:
            run = await exits.enter_async_context(system(options.run_file))
        for name in options.versions:
            try:
                is_right, those = await replay(run, own, options, Version(name))
                good, stations = is_right and good, stations + those
            except* WrongAnswer as group:
                good = False
                for error in group.exceptions:
                    print(f"  WRONG {error}")
        if own is not None and options.rebuild:
            for service in ("billing", "sessions"):
                good = await rebuild(own, service, stations, options) and good
    print("verdict: every bill is right" if good else "verdict: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    parser = command_line(__doc__ or "")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for billing to end")
    parser.add_argument("--kill", action="store_true", help="SIGKILL to processes of sessions and billing, in turn")
    parser.add_argument("--rebuild", action="store_true", help="fold everything from offset 0 again, and compare")
    parsed = parser.parse_args()
    if parsed.run_file and (parsed.kill or parsed.rebuild):
        parser.error("--kill and --rebuild are for a stack of the script's own, without --run-file")
    sys.exit(asyncio.run(main(parsed)))
