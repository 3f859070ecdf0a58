"""A billing service in memory: tables as dictionaries, batches as the runtime makes them, sessions that are told of."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from busbar.avro import decode, encode
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.records import Record, Result
from busbar.tariffs import REVISION, Configuration, Site, StoredVersion, TariffBook
from services.billing.model import Policy
from services.billing.processor import SESSION_EVENTS_TOPIC, BillingProcessor, Heard
from services.billing.store import CDRS, COST_QUIRKS, FACTS, JOURNAL, SESSIONS, UNPLUGGED
from tests.unit.pricing.builders import component, element, tariff_json

T0 = 1_763_712_000_000
"""2025-11-21T08:00:00Z: what test sessions call zero."""
MINUTE = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SESSION_ID = "5f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55"
BEGIN_WH = Decimal(1_000_000)
TARIFF = tariff_json(
    element(component("ENERGY", "0.50", "20"), component("PARKING_TIME", "6", "20"), component("FLAT", "1", "20"))
)
FREE = tariff_json(element(component("FLAT", "0")))

_STORE = (
    ("session_id station_id transaction_id site_id evse_id connector_id id_token id_token_type ocpp_version status "
     "reason tariff_id tariff_version time_zone currency cost_excl cost_incl energy energy_rung started ended cdr_id "
     "cdr_count flags updated fold"),
    "session_id sequence facts",
    ("cdr_id session_id number reference station_id site_id id_token started ended currency total_excl total_incl "
     "energy energy_rung tariff_id tariff_version flags ocpi bill updated"),
    "event_id station_id evse_id energy begin end at session_id",
    "partition batch until entries",
    "session_id currency total after_tax ours failed reason details checked",
)  # fmt: skip


def configuration(tariffs: dict[str, dict[str, Any]], sites: Sequence[Site] = ()) -> Configuration:
    """Tariffs by `ID/VERSION`."""
    versions = []
    for key, source in tariffs.items():
        tariff_id, _, number = key.partition("/")
        versions.append(StoredVersion(tariff_id, int(number), serialize_json(source), 0))
    return Configuration(revision=1, versions=tuple(versions), sites=tuple(sites))


class Tables:
    """What the database holds. Stands in for a connection."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.facts: list[dict[str, Any]] = []
        self.cdrs: dict[str, dict[str, Any]] = {}
        self.unattributed: dict[str, dict[str, Any]] = {}
        self.journal: dict[tuple[int, int], bytes] = {}
        self.writes = 0
        self.cost_quirks: dict[str, str] = {}
        self.station_costs: dict[str, dict[str, Any]] = {}

    async def fetchval(self, query: str, *wanted: Any) -> Any:
        if query == UNPLUGGED:
            found = (key for key, row in self.sessions.items() if (row["station_id"], row["transaction_id"]) == wanted)
            return next(found, None)
        assert query == REVISION
        return 1

    async def fetch(self, query: str, wanted: Sequence[Any], *others: Any) -> list[Any]:
        if others:
            return []  # versions of tariffs that the book does not know: there are none
        if query == SESSIONS:
            return [(key, self.sessions[key]["fold"]) for key in wanted if key in self.sessions]
        if query == FACTS:
            found = [(row["session_id"], row["facts"], row["sequence"]) for row in self.facts]
            return [row[:2] for row in sorted(found, key=lambda row: row[2]) if row[0] in wanted]
        if query == JOURNAL:
            return [(*key, entries) for key, entries in sorted(self.journal.items()) if key[0] in wanted]
        if query == COST_QUIRKS:
            return [(key, self.cost_quirks[key]) for key in wanted if key in self.cost_quirks]
        assert query == CDRS
        return [_row(self.cdrs[key]) for key in wanted]

    def store(self, arguments: Sequence[Any]) -> None:
        """As billing.store."""
        rows: list[list[dict[str, Any]]] = []
        rest = list(arguments)
        for names in _STORE:
            columns = [rest.pop(0) for _ in names.split()]
            assert len({len(column) for column in columns}) == 1
            rows.append([dict(zip(names.split(), row, strict=True)) for row in zip(*columns, strict=True)])
        assert not rest
        sessions, facts, cdrs, unattributed, journal, station_costs = rows
        self.station_costs |= {row["session_id"]: row for row in station_costs}
        self.writes += len(sessions)
        assert len({row["session_id"] for row in sessions}) == len(sessions)
        self.sessions |= {row["session_id"]: row for row in sessions}
        keys = {(row["session_id"], row["sequence"]) for row in self.facts}
        for row in facts:
            assert (row["session_id"], row["sequence"]) not in keys
            self.facts.append(row)
        for row in cdrs:
            assert row["cdr_id"] not in self.cdrs
            self.cdrs[row["cdr_id"]] = row
        for row in unattributed:
            assert row["event_id"] not in self.unattributed
            self.unattributed[row["event_id"]] = row
        for row in journal:
            for key in [key for key in self.journal if key[0] == row["partition"] and key[1] <= row["until"]]:
                del self.journal[key]
            if row["entries"]:
                assert (row["partition"], row["batch"]) not in self.journal
                self.journal[row["partition"], row["batch"]] = row["entries"]


def _row(cdr: dict[str, Any]) -> dict[str, Any]:
    moments = {"started_at": cdr["started"], "ended_at": cdr["ended"], "last_updated": cdr["updated"]}
    return {
        **cdr,
        **{name: EPOCH + timedelta(milliseconds=at) for name, at in moments.items()},
        "energy_wh": Decimal(cdr["energy"]).scaleb(-6),
        "flags": cdr["flags"].split(",") if cdr["flags"] else [],
    }


class World:
    """Tables, and a processor that reads and writes them."""

    def __init__(self, tariffs: dict[str, Any] | None = None, sites: Sequence[Site] = (), **policy: Any) -> None:
        self.configuration = configuration(tariffs or {"T/1": TARIFF, "FREE/1": FREE}, sites)
        self.policy = Policy(**policy)
        self.tables = Tables()
        self.results: list[Result] = []
        self.now_ms = time.time_ns() // 1_000_000
        self.restart()

    def restart(self) -> None:
        """Another process takes over."""
        book = TariffBook()
        book.accept(self.configuration)
        self.processor = BillingProcessor(book, self.policy, now_ms=lambda: self.now_ms)

    def batch(self, *events: dict[str, Any], commit: bool = True) -> list[dict[str, Any]]:
        """Fold these events together, and return the records that they led to."""
        return self.raw_batch([(encode("csms.SessionEvent", event), 0) for event in events], commit=commit)

    def raw_batch(self, values: Sequence[tuple[bytes, int]], *, commit: bool = True) -> list[dict[str, Any]]:
        """The same for values of records with their partitions."""
        decode_record = self.processor.decode
        return self.handle(
            [decode_record(Record(SESSION_EVENTS_TOPIC, partition, 0, 0, b"", value)) for value, partition in values],
            commit=commit,
        )

    def wait(self, seconds: float, partitions: int = 1) -> int:
        """Let so much time pass, and fold what has come due then; returns how much that was."""
        self.now_ms += round(seconds * 1000)
        due = run(self.processor.due(self.tables, range(partitions), self.now_ms))
        self.handle(due)
        return len(due)

    def handle(self, events: Sequence[Heard], *, commit: bool = True) -> list[dict[str, Any]]:
        """Fold a batch, and return the records that it led to."""
        processor = self.processor
        state = run(processor.load(self.tables, events))
        results = [result for event in events for result in processor.fold(state, event)]
        call = processor.store_call(state)
        if not commit:
            processor.lost()
            return []
        self.tables.store(call.arguments)
        processor.committed(state)
        self.results += results
        return [decode(result.value)[1] for result in results]

    def session(self, session_id: str = SESSION_ID) -> dict[str, Any]:
        return self.tables.sessions[session_id]

    def net(self) -> Decimal:
        """What all records come to, credits taken off."""
        return sum((row["total_incl"] for row in self.tables.cdrs.values()), Decimal(0))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("nothing here waits")


@dataclass
class Session:
    """A session that is told of, event by event."""

    tariff: str = "T/1"
    """ID/VERSION; empty for none."""
    session_id: str = SESSION_ID
    time_zone: str = "UTC"
    head: dict[str, Any] = field(default_factory=dict)
    rung: str = "samples"
    sequence: int = 0
    seq_no: int = 0
    begin_wh: Decimal | None = None
    energy_wh: Decimal = Decimal(0)
    started_ms: int | None = None
    ended_ms: int | None = None
    register_wh: Decimal | None = None

    def event(self, minutes: float, kind: str = "updated", **more: Any) -> dict[str, Any]:
        """One event; its sequence is the next."""
        self.sequence += 1
        at_ms = T0 + round(minutes * MINUTE)
        tariff_id, _, version = self.tariff.partition("/")
        value = {
            "session_id": self.session_id,
            "station_id": "CS-1",
            "ocpp_version": "2.0.1",
            "transaction_id": "tx-1",
            "site_id": "",
            "evse_id": 1,
            "connector_id": 1,
            "id_token": "TAG",
            "id_token_type": "ISO14443",
            "group_id": "",
            "authorization_status": "Accepted",
            "reservation_id": None,
            "remote_start_id": None,
            "tariff_id": tariff_id,
            "tariff_version": int(version or 0),
            "time_zone": self.time_zone if tariff_id else "",
            "event_id": f"{self.session_id}/{self.sequence}",
            "sequence": self.sequence,
            "kind": kind,
            "state": "open",
            "final": False,
            "complete": False,
            "offline": False,
            "at": at_ms,
            "station_at": at_ms,
            "received_at": at_ms + 141,
            "started_at": self.started_ms,
            "ended_at": self.ended_ms,
            "trigger": "",
            "seq_no": None,
            "charging_state": "",
            "energy_wh": self.energy_wh,
            "energy_rung": self.rung,
            "register_begin_wh": self.begin_wh,
            "register_end_wh": self.register_wh,
            "power_w": None,
            "current_a": None,
            "soc_percent": None,
            "points": [],
            "stop_reason": "",
            "stop_id_token": "",
            "missing_seq_nos": [],
            "flags": [],
        }
        return value | self.head | more

    def started(self, minutes: float = 0, wh: float | None = 0, state: str = "Charging", **more: Any) -> dict[str, Any]:
        self.started_ms = T0 + round(minutes * MINUTE)
        return self.measured(minutes, wh, state, kind="started", **more)

    def measured(
        self, minutes: float, wh: float | None, state: str = "", *, kind: str = "updated", **more: Any
    ) -> dict[str, Any]:
        """With a register, so many Wh above the begin."""
        points = []
        if wh is not None:
            register = BEGIN_WH + Decimal(str(wh))
            at_ms = T0 + round(minutes * MINUTE)
            points = [{"at": at_ms, "register_wh": register, "power_w": None, "current_a": None}]
            if self.begin_wh is None:
                self.begin_wh = register
            if self.register_wh is None or register > self.register_wh:
                self.register_wh = register
            self.energy_wh = self.register_wh - self.begin_wh
        return self.event(minutes, kind, charging_state=state, points=points, **more)

    def ended(self, minutes: float, wh: float | None = None, **more: Any) -> dict[str, Any]:
        self.ended_ms = T0 + round(minutes * MINUTE)
        return self.measured(minutes, wh, kind="ended", state="", **{"final": True, "complete": True, **more}) | {
            "state": more.get("session_state", "ended")
        }


def plain_session(session: Session | None = None) -> list[dict[str, Any]]:
    """An hour: 10 kWh in 20 minutes, then parked."""
    session = session or Session()
    return [
        session.started(),
        session.measured(10, 5000),
        session.measured(20, 10_000, "SuspendedEV"),
        session.measured(40, 10_000),
        session.ended(60, 10_000),
    ]


def ocpi(cdr: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = parse_json(cdr["ocpi"])
    return document
