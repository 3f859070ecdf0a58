"""Stations with a conscience: each keeps a ledger, resends what was not answered, and mistrusts every reply.

They speak through the `websockets` client and share no code with the system. Everything that they decide comes from
their seed; only the timing is the machine's.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.chaos.ledger import Fact, Ledger, Transaction

REPLY_TIMEOUT_SECONDS = 40.0
"""Longer than the system may take for a late answer, so that waiting shows whether one comes."""


class ChaosStation:
    """One station that lives through faults."""

    def __init__(
        self, number: int, seed: int, edges: Callable[[], list[str]], ledger: Ledger, *, transactions: int, pace: float
    ) -> None:
        self.random = random.Random(f"{seed}/{number}")
        self.version = self.random.choice(["1.6", "2.0.1", "2.1"])
        self.station_id = f"CHAOS-{seed}-{number:03d}"
        self._edges = edges
        self._ledger = ledger
        self._count = transactions
        self._pace = pace
        self._register = self.random.randrange(1_000, 9_000_000)
        self._clock = datetime.now(UTC)
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._answered: set[str] = set()
        self._given_up: set[str] = set()
        self._message_number = 0

    async def run(self) -> None:
        """Live through all transactions; returns once every fact has been acknowledged."""
        await self._deliver(self._fact(self._boot()))
        for number in range(self._count):
            transaction = self._begin(number)
            offline = self.random.random() < 0.15
            if offline:
                await self._disconnect()
                await asyncio.sleep(self.random.uniform(0, 2 * self._pace))
            events = list(self._events(transaction, offline))
            if offline and self.version != "1.6" and len(events) > 3:
                # A queue that was kept by several writers: neighbours may have changed places.
                for index in range(1, len(events) - 2):
                    if self.random.random() < 0.3:
                        events[index], events[index + 1] = events[index + 1], events[index]
            for fact in events:
                self._fill_transaction_id(fact, transaction)
                await self._deliver(fact)
                if fact.action == "StartTransaction":
                    transaction.transaction_id = str(fact.replies[0]["transactionId"])
                if self.random.random() < 0.05:
                    await self._deliver(fact)  # the reply went astray, says the station
                if not offline:
                    await asyncio.sleep(self.random.expovariate(1 / self._pace))
        await self._disconnect()

    # What it has to say

    def _boot(self) -> tuple[str, dict[str, Any]]:
        if self.version == "1.6":
            return "BootNotification", {"chargePointVendor": "Chaos", "chargePointModel": "C16"}
        return "BootNotification", {"reason": "PowerUp", "chargingStation": {"vendorName": "Chaos", "model": "C2"}}

    def _begin(self, number: int) -> Transaction:
        transaction = Transaction(self.station_id, self.version, number, self._register)
        if self.version != "1.6":
            transaction.transaction_id = f"{self.station_id}-{number}"
        self._ledger.transactions.append(transaction)
        return transaction

    def _events(self, transaction: Transaction, offline: bool) -> Iterator[Fact]:
        updates = self.random.randrange(1, 6)
        self._register += self.random.choice([0, 0, 7])
        transaction.start_wh = self._register
        transaction.started_at = self._tick()
        for index in range(updates + 2):
            kind = "Started" if index == 0 else "Ended" if index == updates + 1 else "Updated"
            if kind != "Started":
                self._register += self.random.randrange(0, 2500)
            if kind == "Ended":
                transaction.stop_wh = self._register
            make = self._event_16 if self.version == "1.6" else self._event_2
            timestamp = transaction.started_at if index == 0 else self._tick()
            fact = self._fact(make(kind, index, timestamp, offline))
            transaction.events.append(fact)
            yield fact

    def _event_16(self, kind: str, index: int, timestamp: str, offline: bool) -> tuple[str, dict[str, Any]]:
        if kind == "Started":
            return "StartTransaction", {
                "connectorId": 1, "idTag": "CHAOS", "meterStart": self._register, "timestamp": timestamp,
            }  # fmt: skip
        if kind == "Ended":
            return "StopTransaction", {"transactionId": 0, "meterStop": self._register, "timestamp": timestamp}
        sample = {"value": str(self._register), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        return "MeterValues", {
            "connectorId": 1, "transactionId": 0, "meterValue": [{"timestamp": timestamp, "sampledValue": [sample]}],
        }  # fmt: skip

    def _event_2(self, kind: str, index: int, timestamp: str, offline: bool) -> tuple[str, dict[str, Any]]:
        context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
        sample = {"value": self._register, "context": context, "measurand": "Energy.Active.Import.Register"}
        payload: dict[str, Any] = {
            "eventType": kind,
            "timestamp": timestamp,
            "triggerReason": {"Started": "Authorized", "Ended": "EVDeparted"}.get(kind, "MeterValuePeriodic"),
            "seqNo": index,
            "offline": offline,
            "transactionInfo": {"transactionId": self._ledger.transactions[-1].transaction_id},
            "meterValue": [{"timestamp": timestamp, "sampledValue": [sample]}],
        }
        if kind == "Started":
            payload["evse"] = {"id": 1, "connectorId": 1}
            payload["idToken"] = {"idToken": "CHAOS", "type": "ISO14443"}
        return "TransactionEvent", payload

    def _fill_transaction_id(self, fact: Fact, transaction: Transaction) -> None:
        if fact.action in ("MeterValues", "StopTransaction"):
            fact.payload["transactionId"] = int(transaction.transaction_id)
        elif fact.action == "TransactionEvent":
            fact.payload["transactionInfo"]["transactionId"] = transaction.transaction_id

    def _tick(self) -> str:
        self._clock = max(self._clock + timedelta(seconds=1), datetime.now(UTC) - timedelta(seconds=30))
        return self._clock.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def _fact(self, call: tuple[str, dict[str, Any]]) -> Fact:
        fact = Fact(self.station_id, *call)
        self._ledger.facts.append(fact)
        return fact

    # Getting it across

    async def _deliver(self, fact: Fact) -> None:
        before = len(fact.replies)
        while len(fact.replies) == before:
            socket = await self._connected()
            self._message_number += 1
            message_id = f"{self.station_id[-3:]}-{self._message_number}"
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting[message_id] = reply
            fact.sendings += 1
            sent = time.monotonic()
            try:
                await socket.send(json.dumps([2, message_id, fact.action, fact.payload]))
                payload = await asyncio.wait_for(reply, REPLY_TIMEOUT_SECONDS)
            except websockets.ConnectionClosed:
                await self._disconnect()
            except TimeoutError:
                self._given_up.add(message_id)
                self._ledger.violations.append(
                    f"{self.station_id}: no reply to {fact.action} within {REPLY_TIMEOUT_SECONDS:.0f} s"
                )
                await self._disconnect()
            else:
                self._ledger.slowest_reply_seconds = max(self._ledger.slowest_reply_seconds, time.monotonic() - sent)
                fact.replies.append(payload)
            finally:
                self._waiting.pop(message_id, None)

    async def _connected(self) -> ClientConnection:
        while self._socket is None:
            edge = self.random.choice(self._edges())
            subprotocol = Subprotocol(f"ocpp{self.version}")
            try:
                socket = await websockets.connect(
                    f"{edge}/{self.station_id}",
                    subprotocols=[subprotocol],
                    compression=None,
                    open_timeout=5,
                    ping_interval=20,
                    ping_timeout=20,
                )
            except (OSError, TimeoutError, websockets.InvalidHandshake, websockets.InvalidMessage, EOFError):
                self._ledger.reconnects += 1
                await asyncio.sleep(self.random.uniform(0.2, 1.5))
                continue
            self._ledger.connections += 1
            self._answered.clear()
            self._given_up.clear()
            self._socket = socket
            self._reader = asyncio.create_task(self._read(socket))
        return self._socket

    async def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            try:
                await asyncio.wait_for(socket.close(), 2)
            except (TimeoutError, OSError):
                socket.transport.abort()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                await self._receive(socket, json.loads(text))
        except websockets.ConnectionClosed:
            pass
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(websockets.ConnectionClosedError(None, None))
            if self._socket is socket:
                self._socket = None

    async def _receive(self, socket: ClientConnection, frame: list[Any]) -> None:
        kind, message_id = frame[0], frame[1]
        if kind == 2:
            self._ledger.commands.setdefault(message_id, []).append(self.station_id)
            await socket.send(json.dumps([3, message_id, {"status": "Accepted"}]))
            return
        future = self._waiting.get(message_id)
        if message_id in self._answered:
            self._ledger.violations.append(f"{self.station_id}: second reply to {message_id}: {frame}")
        elif future is None and message_id not in self._given_up:
            self._ledger.violations.append(f"{self.station_id}: stray reply {frame}")
        elif kind == 4:
            self._ledger.violations.append(f"{self.station_id}: CALLERROR {frame}")
            if future is not None and not future.done():
                future.set_result({})
        elif future is not None and not future.done():
            future.set_result(frame[2])
        self._answered.add(message_id)


async def run_fleet(
    edges: Callable[[], list[str]], ledger: Ledger, *, seed: int, stations: int, transactions: int, pace: float
) -> None:
    """Run the whole fleet to its end."""
    fleet = [
        ChaosStation(number, seed, edges, ledger, transactions=transactions, pace=pace) for number in range(stations)
    ]
    await asyncio.gather(*(station.run() for station in fleet))
