"""Stations with a conscience: each keeps a ledger, resends what was not answered, and mistrusts every reply.

They speak through the `websockets` client and share no code with the system. Everything that they decide comes from
their seed; only the timing is the machine's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.chaos.ledger import Fact, Ledger, Receipt, Transaction

REPLY_TIMEOUT_SECONDS = 40.0
"""Longer than the system may take for a late answer, so that waiting shows whether one comes."""

_MEMBERS = {"BootNotification": "status", "Heartbeat": "currentTime", "StartTransaction": "transactionId"}
"""What the answer to an action must have; of the other actions it may be empty."""

_ANSWERS: dict[str, dict[str, Any]] = {"GetTransactionStatus": {"messagesInQueue": True}, "CostUpdated": {}}
"""To commands that are not simply accepted."""


class ChaosStation:
    """One station that lives through faults."""

    def __init__(
        self, number: int, seed: int, edges: Callable[[], dict[str, str]], ledger: Ledger, *, pace: float
    ) -> None:
        self.random = random.Random(f"{seed}/{number}")
        self._chance = random.Random(f"{seed}/{number}/connections")
        """For what depends on the machine's timing, so that the rest does not."""
        self.version = self.random.choice(["1.6", "2.0.1", "2.1"])
        self.station_id = f"CHAOS-{seed}-{number:03d}"
        self._edges = edges
        self._ledger = ledger
        self._pace = pace
        self._register = self.random.randrange(1_000, 9_000_000)
        self._clock = datetime.now(UTC)
        self.edge = ""
        """Where it is connected."""
        self._socket: ClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._connection = 0
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._answered: set[str] = set()
        self._given_up: set[str] = set()
        self._message_number = 0
        self._repeats_ids = self.random.random() < 0.3
        """Whether it counts its messages anew on each connection."""
        ledger.versions[self.station_id] = self.version

    async def run(self, transactions: int, enough: Callable[[], bool]) -> None:
        """Live through so many transactions, and more until it is enough; all has been acknowledged afterwards."""
        await self._deliver(self._fact(self._boot()))
        for number in itertools.count():
            if number >= transactions and enough():
                break
            if self.random.random() < 0.15:
                await self._transaction_offline(number)
            else:
                await self._transaction(number)
            await self._deliver(self._fact(self._status("Available")))

    async def stay(self) -> None:
        """Remain connected until cancelled."""
        while True:
            await self._connected()
            await asyncio.sleep(0.1)

    async def probe(self) -> None:
        """Ask the edge and a service, and get an answer from both."""
        await self._deliver(self._fact(("Heartbeat", {})))
        await self._deliver(self._fact(self._status(self.random.choice(["Available", "Unavailable"]))))

    async def leave(self) -> None:
        """Disconnect."""
        await self._disconnect()

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def _transaction(self, number: int) -> None:
        await self._deliver(self._fact(self._status("Preparing" if self.version == "1.6" else "Occupied")))
        transaction = self._begin(number)
        for fact in self._events(transaction, offline=False):
            await self._tell(fact, transaction)
            if self.random.random() < 0.05:
                await self._tell(fact, transaction)  # the reply went astray, says the station
            await asyncio.sleep(self.random.expovariate(1 / self._pace))

    async def _transaction_offline(self, number: int) -> None:
        """A whole transaction happens out of reach, and is told afterwards from a queue that was badly kept."""
        await self._disconnect()
        transaction = self._begin(number)
        queue = list(self._events(transaction, offline=True))
        await asyncio.sleep(self.random.uniform(0, 2 * self._pace))
        # Several writers kept it: neighbours may have changed places. 1.6 needs the answer to its start first.
        for index in range(1 if self.version == "1.6" else 0, len(queue) - 1):
            if self.random.random() < 0.3:
                queue[index], queue[index + 1] = queue[index + 1], queue[index]
        for fact in queue:
            await self._tell(fact, transaction)
            if self.random.random() < 0.05:
                await self._tell(fact, transaction)
        if self.random.random() < 0.3:  # what had been delivered was forgotten
            for fact in queue[: self.random.randrange(1, len(queue) + 1)]:
                await self._tell(fact, transaction)

    async def _tell(self, fact: Fact, transaction: Transaction) -> None:
        self._fill_transaction_id(fact, transaction)
        await self._deliver(fact)
        if fact.action == "StartTransaction":
            transaction.transaction_id = str(fact.replies[0]["transactionId"])

    # What it has to say

    def _status(self, status: str) -> tuple[str, dict[str, Any]]:
        timestamp = self._tick()
        if self.version == "1.6":
            return "StatusNotification", {
                "connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": timestamp,
            }  # fmt: skip
        return "StatusNotification", {
            "evseId": 1, "connectorId": 1, "connectorStatus": status, "timestamp": timestamp,
        }  # fmt: skip

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
            reply.add_done_callback(lambda future: future.cancelled() or future.exception())  # it may come too late
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
                if (member := _MEMBERS.get(fact.action)) is not None and member not in payload:
                    self._ledger.violations.append(f"{self.station_id}: {payload} does not answer {fact.action}")
                self._ledger.slowest_reply_seconds = max(self._ledger.slowest_reply_seconds, time.monotonic() - sent)
                self._ledger.acknowledge(fact, payload)
            finally:
                self._waiting.pop(message_id, None)

    async def _connected(self) -> ClientConnection:
        async with self._connecting:
            return await self._connect()

    async def _connect(self) -> ClientConnection:
        while self._socket is None:
            edges = self._edges()
            edge = self._chance.choice(sorted(edges))
            subprotocol = Subprotocol(f"ocpp{self.version}")
            try:
                socket = await websockets.connect(
                    f"{edges[edge]}/{self.station_id}",
                    subprotocols=[subprotocol],
                    compression=None,
                    open_timeout=5,
                    ping_interval=20,
                    ping_timeout=20,
                )
            except (OSError, TimeoutError, websockets.InvalidHandshake, websockets.InvalidMessage, EOFError):
                self._ledger.reconnects += 1
                await asyncio.sleep(self._chance.uniform(0.2, 1.5))
                continue
            self._ledger.connections += 1
            self._connection += 1
            self.edge = edge
            self._answered.clear()
            self._given_up.clear()
            if self._repeats_ids:
                self._message_number = 0
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
            receipt = Receipt(self.station_id, self._connection)
            self._ledger.commands.setdefault(message_id, []).append(receipt)
            await socket.send(json.dumps([3, message_id, _ANSWERS.get(frame[2], {"status": "Accepted"})]))
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


class Fleet:
    """All stations, from their first boot to their leaving.

    Args:
        edges: Where stations may connect at this moment: URLs by the edge's name.
    """

    def __init__(
        self, edges: Callable[[], dict[str, str]], ledger: Ledger, *, seed: int, stations: int, pace: float
    ) -> None:
        self.stations = [ChaosStation(number, seed, edges, ledger, pace=pace) for number in range(stations)]
        self._staying: list[asyncio.Task[None]] = []

    async def live(self, transactions: int, enough: Callable[[], bool]) -> None:
        """Let every station live to its end; they stay connected afterwards."""

        async def live(station: ChaosStation) -> None:
            await station.run(transactions, enough)
            self._staying.append(asyncio.create_task(station.stay()))

        async with asyncio.TaskGroup() as group:
            for station in self.stations:
                group.create_task(live(station))

    async def probe(self) -> None:
        """Every station asks, and gets an answer."""
        async with asyncio.TaskGroup() as group:
            for station in self.stations:
                group.create_task(station.probe())

    def sockets(self) -> dict[str, str]:
        """The edge of every station that is connected."""
        return {station.station_id: station.edge for station in self.stations if station.connected}

    async def leave(self) -> None:
        """Disconnect every station."""
        for task in self._staying:
            task.cancel()
        await asyncio.gather(*self._staying, return_exceptions=True)
        await asyncio.gather(*(station.leave() for station in self.stations))
