"""Stations that follow a script, and the tables that must come of it.

Everything that a station says comes from a seed, its timestamps included, so that two runs say the same. Its clock runs
faster than ours: ten of its minutes are a few seconds. It keeps the rules of the field: one CALL at a time, each sent
again until it is answered, and what comes after waits in its queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import asyncpg
import orjson

from busbar.ocpp.versions import Version
from tests.e2e.system import System, eventually
from tests.load.replay_client import Chaos, Counts, Payload, ReplayStation

SEED = 20260301
TOKEN = "SCRIPTED"
GROUP = "sessions"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a station says, and when."""

    at: float
    """By the station's clock, in seconds from its beginning."""
    action: str
    payload: Payload


class Script:
    """What one station lives through, all of it from its seed.

    Three kinds: OCPP 2.x, whose every CALL of a transaction has a late answer; 1.6 with a long transaction that has
    begun before the outage; and 1.6 with a transaction that begins in the outage, whose start nobody can answer: it
    keeps all that comes after until then. Events of a station are at least a minute apart, times `stretch`, so that no
    delay looks like a clock that runs at the pace of ours.
    """

    def __init__(self, prefix: str, number: int, base: datetime, *, stretch: float = 1.0) -> None:
        self.stretch = stretch
        self.random = Random(f"{SEED}/{number}")
        self.station_id = f"{prefix}-{number:02}"
        self.version = (Version.V16, Version.V201, Version.V21, Version.V16)[number % 4]
        self.base = base
        self.begins_in_outage = number % 4 == 3
        self.register = self.random.randrange(1_000, 1_000_000)
        self.token = "NOBODY" if number == 5 else TOKEN
        self.sessions: list[Decimal] = []
        """Watt-hours of each, in order."""
        self.events = 0
        """Rows of `sessions.meter_values`."""
        self.steps: list[Step] = []
        at = self.random.uniform(5, 30)
        if self.version is not Version.V16:
            for index in range(3):
                at = self._transaction_2(index, at) + self.random.uniform(62, 70)
        elif self.begins_in_outage:
            at = self._transaction_16(at, updates=0) + self.random.uniform(80, 100)
            self._transaction_16(at, updates=4)
        else:
            self._transaction_16(at, updates=7)

    def when(self, at: float) -> str:
        return (self.base + timedelta(seconds=at * self.stretch)).astimezone(UTC).isoformat(timespec="milliseconds")[
            :-6
        ] + "Z"

    def _say(self, at: float, action: str, payload: Payload, *, counts: bool = True) -> None:
        self.steps.append(Step(at * self.stretch, action, payload))
        self.events += counts

    def _transaction_16(self, at: float, updates: int) -> float:
        begin = self.register
        start = {"connectorId": 1, "idTag": self.token, "meterStart": begin, "timestamp": self.when(at)}
        self._say(at, "StartTransaction", start)
        at += 100 if self.begins_in_outage and updates else 0
        for _ in range(updates):
            at += self.random.uniform(62, 80)
            self.register += self.random.randrange(0, 900)
            sample = {"value": str(self.register), "unit": "Wh"}
            values = [{"timestamp": self.when(at), "sampledValue": [sample]}]
            self._say(at, "MeterValues", {"connectorId": 1, "meterValue": values})
            status = {"connectorId": 1, "errorCode": "NoError", "status": "Charging", "timestamp": self.when(at + 1)}
            self._say(at + 1, "StatusNotification", status, counts=False)
        at += self.random.uniform(62, 80)
        self.register += self.random.randrange(0, 900)
        self._say(at, "StopTransaction", {"meterStop": self.register, "timestamp": self.when(at)})
        self.sessions.append(Decimal(self.register - begin))
        return at

    def _transaction_2(self, index: int, at: float) -> float:
        begin = self.register
        kinds = ("Started", "Updated", "Updated", "Ended")
        for number, kind in enumerate(kinds):
            if number:
                at += self.random.uniform(62, 66)
                self.register += self.random.randrange(0, 900)
            context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
            event: Payload = {
                "eventType": kind,
                "timestamp": self.when(at),
                "triggerReason": {"Started": "Authorized", "Ended": "StopAuthorized"}.get(kind, "MeterValuePeriodic"),
                "seqNo": number,
                "transactionInfo": {"transactionId": f"{self.station_id}/{index}"},
                "meterValue": [
                    {"timestamp": self.when(at), "sampledValue": [{"value": self.register, "context": context}]}
                ],
            }
            if kind == "Started":
                event |= {"evse": {"id": 1, "connectorId": 1}, "idToken": {"idToken": self.token, "type": "Central"}}
            self._say(at, "TransactionEvent", event)
        self.sessions.append(Decimal(self.register - begin))
        return at


class Player:
    """Plays a script over a real socket: one CALL at a time, each when it is due and all before it are answered."""

    def __init__(self, script: Script, password: str, urls: Sequence[str], counts: Counts) -> None:
        self.script = script
        self.done = 0
        """Steps that were answered."""
        random = Random(script.station_id)
        self.station = ReplayStation(
            script.station_id, password, script.version, urls, random=random, chaos=Chaos(), counts=counts
        )

    @property
    def waits_for_a_transaction(self) -> bool:
        return self.done < len(self.script.steps) and self.script.steps[self.done].action == "StartTransaction"

    async def boot(self) -> None:
        if self.script.version is Version.V16:
            boot: Payload = {"chargePointVendor": "V", "chargePointModel": "M"}
        else:
            boot = {"reason": "PowerUp", "chargingStation": {"vendorName": "V", "model": "M"}}
        await self.station.call("BootNotification", boot)

    async def play(self, clock: Callable[[], float], speed: float) -> None:
        transaction_id = 0
        for step in self.script.steps:
            await asyncio.sleep(max(0.0, step.at - clock()) / speed)
            payload = step.payload
            if step.action in ("MeterValues", "StopTransaction"):
                payload = payload | {"transactionId": transaction_id}
            answer = await self.station.call(step.action, payload)
            transaction_id = answer.get("transactionId", transaction_id)
            self.done += 1
        await self.station.close()


async def register(system: System, scripts: Sequence[Script]) -> dict[str, str]:
    """Make the stations and their token known; returns the passwords."""
    await system.add_token(TOKEN, allow_concurrent=True, max_concurrent=1000)
    return {script.station_id: await system.register(script.station_id) for script in scripts}


async def booted(system: System, scripts: Sequence[Script], passwords: dict[str, str], counts: Counts) -> list[Player]:
    """A player for each script, connected."""
    players = [Player(script, passwords[script.station_id], system.edges, counts) for script in scripts]
    await asyncio.gather(*(player.boot() for player in players))
    return players


class Tables:
    """The tables of sessions, as a whole."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def names(self) -> list[str]:
        rows = await self._fetch(
            "SELECT relname FROM pg_class c WHERE relnamespace = 'sessions'::regnamespace AND relkind = 'r'"
        )
        return sorted(row[0] for row in rows)

    async def rows(self) -> dict[str, list[Any]]:
        """Every row of every table as JSON, bytes in hexadecimal, all as of one moment.

        A short backlog is one batch: committed between the reading of two tables, it would be in the second one only.
        """
        found = {}
        names = await self.names()
        connection = await asyncpg.connect(self._url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for name in names:
                    rows = await connection.fetch(f"SELECT to_jsonb(t)::text FROM sessions.{name} t ORDER BY 1")
                    found[name] = [orjson.loads(row[0]) for row in rows]
        finally:
            await connection.close()
        return found

    async def wipe(self, *, progress: bool) -> None:
        """Remove every row; with `progress` whatever says how far the group has read, too."""
        await self._fetch("TRUNCATE " + ", ".join(f"sessions.{name}" for name in await self.names()))
        if progress:
            await self._fetch("DELETE FROM stream.progress WHERE group_name = $1", GROUP)
            await self._fetch("DELETE FROM stream.workers WHERE group_name = $1", GROUP)

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self._url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()


async def settled(tables: Tables, scripts: Sequence[Script]) -> dict[str, list[Any]]:
    """Wait until all that the stations said is folded; returns the tables."""
    events = sum(script.events for script in scripts)
    sessions = sum(len(script.sessions) for script in scripts)

    async def complete() -> dict[str, list[Any]]:
        rows = await tables.rows()
        final = sum(row["is_final"] for row in rows["transactions"])
        return rows if (final, len(rows["meter_values"])) == (sessions, events) else {}

    try:
        rows: dict[str, list[Any]] = await eventually(complete, "every event to be folded", 90)
    except AssertionError:
        rows = await tables.rows()
        open_ones = [(row["station_id"], row["state"]) for row in rows["transactions"] if not row["is_final"]]
        counts = len(rows["transactions"]), len(rows["meter_values"])
        raise AssertionError(f"{counts} sessions and events, not {(sessions, events)}; open: {open_ones}") from None
    return rows


def check_energy(rows: dict[str, list[Any]], scripts: Sequence[Script]) -> None:
    """Each session has the energy that its station counted, in the order in which the station had them."""
    for script in scripts:
        own = [row for row in rows["transactions"] if row["station_id"] == script.station_id]
        own.sort(key=lambda row: str(row["started_at"]))
        assert [Decimal(str(row["energy_wh"])) for row in own] == script.sessions, script.station_id
        flags = ["unauthorized"] if script.token != TOKEN else []
        assert all(row["is_complete"] and row["flags"] == flags for row in own), own
