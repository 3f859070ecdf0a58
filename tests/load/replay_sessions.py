"""Replay real charging sessions through the sockets, and see that every watt-hour arrives once.

    python tests/load/replay_sessions.py SESSIONS.csv [--versions 1.6 2.0.1] [--chaos] [--run-file .busbar/run.json]

The file has a row for each session, with the columns `session`, `ccs` (the plug), `arrival_local` and
`departure_local` (Swiss local time) and `energy_wh`. Each plug has one monotonic register: a session begins at it and
ends at it plus the energy. The plugs' histories are cut into pieces, one for each station; stations replay them
one CALL at a time, as fast as answers come.

The sessions in PostgreSQL and on `csms.session-events` have to be as many as were sent, with the same energy to the
last decimal: in OCPP 2.0.1 that of the file, in 1.6 the sum of the whole registers that were sent. With `--chaos`,
5 % of the CALLs are sent twice, connections break in the middle of a CALL, and a tenth of the sessions waits in the
station's offline queue and leaves it in disorder. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import logging
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from busbar.local.runfile import RunFile
from busbar.local.stack import Options, Stack
from busbar.ocpp.versions import Version
from busbar.simulator.report import percentile
from tests.load.replay_check import in_kafka, in_postgres
from tests.load.replay_client import Chaos, Counts, Payload, ReplayStation, WrongAnswer

ZONE = ZoneInfo("Europe/Zurich")
OFFSET_WH = Decimal(1_234_567)
MICRO = Decimal("0.000001")
CHAOS = Chaos(duplicates=0.05, reconnects=0.02, offline=0.1)


@dataclass(frozen=True, slots=True)
class Session:
    """A row of the file, with the registers of its plug."""

    name: str
    begin: datetime
    end: datetime
    register_begin_wh: Decimal
    register_end_wh: Decimal

    def at(self, share: float) -> tuple[str, Decimal]:
        """Time and register after a share of the session, at its mean power."""
        moment = self.begin + (self.end - self.begin) * share
        register = self.register_begin_wh + (self.register_end_wh - self.register_begin_wh) * Decimal(str(share))
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), register.quantize(MICRO)


def read_sessions(path: Path, limit: int | None) -> dict[str, list[Session]]:
    """The sessions of each plug in the order of time."""
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["arrival_local"])[:limit]
    plugs: dict[str, list[Session]] = {}
    for row in rows:
        known = plugs.setdefault(row["ccs"], [])
        register = known[-1].register_end_wh if known else OFFSET_WH
        known.append(
            Session(
                row["session"],
                datetime.fromisoformat(row["arrival_local"]).replace(tzinfo=ZONE),
                datetime.fromisoformat(row["departure_local"]).replace(tzinfo=ZONE),
                register,
                register + Decimal(row["energy_wh"]).quantize(MICRO),
            )
        )
    return plugs


def pieces(plugs: dict[str, list[Session]], count: int) -> Iterator[list[Session]]:
    """The plugs' histories, cut into about so many pieces."""
    total = sum(map(len, plugs.values()))
    size = max(1, -(-total // count))
    for sessions in plugs.values():
        for start in range(0, len(sessions), size):
            yield sessions[start : start + size]


class Replay16:
    """A piece of history in the words of OCPP 1.6: registers are whole watt-hours."""

    def __init__(self, station: ReplayStation, id_token: str, samples: int) -> None:
        self._station = station
        self._id_token = id_token
        self._samples = samples
        self.sent_wh = Decimal(0)

    async def boot(self) -> None:
        await self._station.call("BootNotification", {"chargePointVendor": "Replay", "chargePointModel": "16"})
        status: Payload = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
        await self._station.call("StatusNotification", status)

    async def run(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            await self._run(session)

    async def _run(self, session: Session) -> None:
        known: list[int] = []
        steps = [("start", 0.0), *(("meter", share) for share in _shares(self._samples)), ("stop", 1.0)]
        if self._station.random.random() < self._station.chaos.offline:
            # Nobody knows the transaction's id before its start is answered: what goes before says -1.
            self._station.random.shuffle(steps)
            self._station.counts.reordered += 1
            await self._station.close()
        for step, share in steps:
            await self._tell(step, *session.at(share), known)
        self.sent_wh += _whole(session.register_end_wh) - _whole(session.register_begin_wh)

    async def _tell(self, step: str, moment: str, register: Decimal, known: list[int]) -> None:
        transaction_id = known[0] if known else -1
        match step:
            case "start":
                start = {
                    "connectorId": 1,
                    "idTag": self._id_token,
                    "meterStart": int(_whole(register)),
                    "timestamp": moment,
                }
                known.append((await self._station.call("StartTransaction", start))["transactionId"])
            case "meter":
                sampled = [{"value": str(_whole(register)), "unit": "Wh"}]
                values = [{"timestamp": moment, "sampledValue": sampled}]
                payload = {"connectorId": 1, "transactionId": transaction_id, "meterValue": values}
                await self._station.call("MeterValues", payload)
            case _:
                stop = {
                    "transactionId": transaction_id,
                    "meterStop": int(_whole(register)),
                    "timestamp": moment,
                    "idTag": self._id_token,
                }
                await self._station.call("StopTransaction", stop)


class Replay201:
    """A piece of history in the words of OCPP 2.0.1: registers have decimals, events have numbers."""

    def __init__(self, station: ReplayStation, id_token: str, samples: int) -> None:
        self._station = station
        self._id_token = id_token
        self._samples = samples
        self.sent_wh = Decimal(0)

    async def boot(self) -> None:
        boot = {"reason": "PowerUp", "chargingStation": {"vendorName": "Replay", "model": "201"}}
        await self._station.call("BootNotification", boot)

    async def run(self, sessions: Sequence[Session]) -> None:
        queue: list[Payload] = []
        for session in sessions:
            events = list(self._events(session))
            self.sent_wh += session.register_end_wh - session.register_begin_wh
            if self._station.random.random() < self._station.chaos.offline:
                queue += [event | {"offline": True} for event in events]
                continue
            await self._empty(queue)
            for event in events:
                await self._station.call("TransactionEvent", event)
        await self._empty(queue)

    async def _empty(self, queue: list[Payload]) -> None:
        """Send what waited while the station was offline, in disorder."""
        if not queue:
            return
        await self._station.close()
        self._station.random.shuffle(queue)
        self._station.counts.reordered += 1
        for event in queue:
            await self._station.call("TransactionEvent", event)
        queue.clear()

    def _events(self, session: Session) -> Iterator[Payload]:
        shares = [0.0, *_shares(self._samples), 1.0]
        for number, share in enumerate(shares):
            moment, register = session.at(share)
            last = number == len(shares) - 1
            kind = "Started" if number == 0 else "Ended" if last else "Updated"
            context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
            event: Payload = {
                "eventType": kind,
                "timestamp": moment,
                "triggerReason": {"Started": "Authorized", "Ended": "StopAuthorized"}.get(kind, "MeterValuePeriodic"),
                "seqNo": number,
                "transactionInfo": {"transactionId": f"{self._station.station_id}/{session.name}"[-36:]},
                "meterValue": [{"timestamp": moment, "sampledValue": [{"value": float(register), "context": context}]}],
            }
            if kind == "Started":
                event |= {
                    "evse": {"id": 1, "connectorId": 1},
                    "idToken": {"idToken": self._id_token, "type": "Central"},
                }
            yield event


def _shares(samples: int) -> list[float]:
    return [round((number + 1) / (samples + 1), 6) for number in range(samples)]


def _whole(register: Decimal) -> Decimal:
    return register.to_integral_value(ROUND_FLOOR)


async def replay(run: RunFile, plugs: dict[str, list[Session]], version: Version, options: argparse.Namespace) -> bool:
    """Replay everything in one version and judge it. Returns whether all is well."""
    chaos = CHAOS if options.chaos else Chaos()
    counts, name = Counts(), f"RP{version.label}{int(time.time()) % 10**7}"
    urls = [edge.url for edge in run.edges]
    _post(run, "/v1/tokens", {"id_token": name, "allow_concurrent": True, "max_concurrent": 10_000})
    kind = Replay16 if version is Version.V16 else Replay201
    jobs = []
    for number, piece in enumerate(pieces(plugs, options.stations)):
        station_id = f"{name}-{number}"
        password = _post(run, "/v1/stations", {"station_id": station_id})["password"]
        random = Random(f"{options.seed}/{version}/{number}")
        station = ReplayStation(station_id, password, version, urls, random=random, chaos=chaos, counts=counts)
        jobs.append((kind(station, name, options.samples), station, piece))
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for job, station, piece in jobs:
            group.create_task(_run(job, station, piece))
    seconds = time.monotonic() - begin
    sessions = sum(len(piece) for _, _, piece in jobs)
    sent_wh = sum((job.sent_wh for job, _, _ in jobs), Decimal(0)).normalize()
    _tell_pace(version, sessions, sent_wh, counts, seconds)
    stations = [station.station_id for _, station, _ in jobs]
    found = [await in_postgres(run.postgres.url, stations, sessions), await in_kafka(run.kafka.url, stations)]
    problems = [problem for each in found for problem in each.problems(sessions, sent_wh)]
    for each in found:
        print(f"  {each.where}: {each.sessions} sessions, {each.energy_wh:,f} Wh")
    for problem in problems:
        print(f"  WRONG {problem}")
    return not problems


async def _run(job: Replay16 | Replay201, station: ReplayStation, piece: Sequence[Session]) -> None:
    await job.boot()
    await job.run(piece)
    await station.close()


def _tell_pace(version: Version, sessions: int, sent_wh: Decimal, counts: Counts, seconds: float) -> None:
    p50, p99 = percentile(counts.latencies, 0.5) or 0.0, percentile(counts.latencies, 0.99) or 0.0
    print(
        f"OCPP {version}: sent {sessions} sessions, {sent_wh:,f} Wh, in {counts.calls} CALLs and {seconds:.1f} s:"
        f" {counts.calls / seconds:.0f} a second, reply p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"
    )
    if counts.duplicates or counts.reconnects or counts.reordered:
        print(
            f"  chaos: {counts.duplicates} CALLs sent twice, {counts.reconnects} broken connections,"
            f" {counts.reordered} offline queues in disorder"
        )


def _post(run: RunFile, path: str, body: Payload) -> Payload:
    headers = {"Authorization": f"Bearer {run.admin_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(run.api_url + path, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        document: Payload = json.loads(response.read())
        return document


@contextlib.asynccontextmanager
async def system(run_file: Path | None) -> AsyncIterator[RunFile]:
    """The running stack, or one of our own in a folder that is thrown away."""
    if run_file is not None:
        yield RunFile.read(run_file)
        return
    with tempfile.TemporaryDirectory(prefix="busbar-replay-") as folder:
        processes = {"edge": 2, "sessions": 2}
        stack = Stack(Options(folder=Path(folder) / "busbar", processes=processes, fleet=0), print)
        try:
            await stack.start()
            yield stack.run_file()
        finally:
            await stack.stop()


async def main(options: argparse.Namespace) -> int:
    plugs = read_sessions(options.file, options.limit)
    total = sum((each[-1].register_end_wh - OFFSET_WH for each in plugs.values()), Decimal(0)).normalize()
    print(f"{sum(map(len, plugs.values()))} sessions on {len(plugs)} plugs, {total:,f} Wh")
    good = True
    async with system(options.run_file) as run:
        for name in options.versions:
            try:
                good = await replay(run, plugs, Version(name), options) and good
            except* WrongAnswer as group:
                good = False
                for error in group.exceptions:
                    print(f"  WRONG {error}")
    print("verdict: every watt-hour arrived once" if good else "verdict: FAILED")
    return 0 if good else 1


def command_line(doc: str) -> argparse.ArgumentParser:
    """The options of a script that replays sessions, described by its first sentence."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the sessions, as CSV")
    parser.add_argument("--versions", nargs="+", default=["1.6", "2.0.1"], choices=["1.6", "2.0.1"])
    parser.add_argument("--chaos", action="store_true", help="duplicates, broken connections, disorder")
    parser.add_argument("--run-file", type=Path, help="of a running stack; one is started unless given")
    parser.add_argument("--stations", type=int, default=16, help="into how many pieces the histories are cut")
    parser.add_argument("--samples", type=int, default=4, help="meter values in each session")
    parser.add_argument("--limit", type=int, help="only so many sessions, the oldest ones")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started is all warnings
    sys.exit(asyncio.run(main(command_line(__doc__ or "").parse_args())))
