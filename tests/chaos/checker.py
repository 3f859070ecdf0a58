"""Compares what the fleet knows with what topics, tables and sockets say. It shares no code with the system."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.chaos.evidence import LABELS, Evidence, Row
from tests.chaos.ledger import Fact, Ledger, Ordeal, Sockets, Transaction

_TERMINAL = {"answered", "error", "timeout", "offline", "disconnected", "rejected"}


@dataclass(slots=True)
class Verdict:
    """What does not agree; empty when all invariants hold."""

    problems: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counted.items()))
        return f"checked {counts}\n" + ("\n".join(self.problems[:50]) if self.problems else "every invariant holds")


def judge(ordeal: Ordeal, evidence: Evidence) -> Verdict:
    """Hold the ledger against everything else."""
    verdict = Verdict()
    ledger = ordeal.ledger
    verdict.problems += ledger.violations
    check_acknowledged_are_kept(verdict, ledger, evidence)
    check_order_in_the_log(verdict, evidence)
    check_sessions(verdict, ledger, evidence)
    check_meter_values(verdict, ledger, evidence)
    check_session_events(verdict, ledger, evidence)
    check_meter_samples(verdict, ledger, evidence)
    check_bills(verdict, evidence)
    check_stations(verdict, ledger, evidence)
    check_commands(verdict, ledger, evidence)
    check_sockets(verdict, ordeal.connected, ordeal.left)
    check_dead_letters(verdict, evidence)
    return verdict


# No acknowledged event is lost


def check_acknowledged_are_kept(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """For each acknowledged sending there is a record in its action's topic; every transaction was acknowledged."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for fact in ledger.facts:
        verdict.expect(fact.acknowledged, f"{fact.station_id}: {fact.action} was never acknowledged")
        if fact.action != "Heartbeat":  # answered by the edge before it is durable
            expected[_topic(ledger, fact)][fingerprint(fact.station_id, fact.action, fact.payload)] += len(fact.replies)
    for transaction in ledger.transactions:
        verdict.expect(transaction.complete, f"{_name(transaction)}: not complete in its own ledger")
    for topic, wanted in expected.items():
        records = evidence.records(topic)
        action = topic.rpartition(".")[2]
        seen = Counter(fingerprint(record["meta"]["station_id"], action, record["payload"]) for record in records)
        verdict.counted[topic] = len(records)
        for key, count in wanted.items():
            verdict.expect(seen[key] >= count, f"{topic}: {key} acknowledged {count} times, {seen[key]} kept")


def fingerprint(station_id: str, action: str, payload: Row) -> str:
    """What tells a fact apart, by the business keys of the specification."""
    match action:
        case "TransactionEvent":
            key = f"{payload['transactionInfo']['transactionId']}/{payload['seqNo']}/{payload['eventType']}"
        case "StartTransaction":
            key = f"{payload['connectorId']}/{payload['meterStart']}/{payload['timestamp']}"
        case "StopTransaction":
            key = f"{payload['transactionId']}/{payload['meterStop']}"
        case "MeterValues":
            key = f"{payload['transactionId']}/{payload['meterValue'][0]['timestamp']}"
        case "StatusNotification":
            key = f"{payload['timestamp']}/{payload.get('status') or payload.get('connectorStatus')}"
        case _:
            key = action
    return f"{station_id} {key}"


def _topic(ledger: Ledger, fact: Fact) -> str:
    return f"ocpp.{LABELS[ledger.versions[fact.station_id]]}.{fact.action}"


# Order


def check_order_in_the_log(verdict: Verdict, evidence: Evidence) -> None:
    """The CALLs of one connection stand in each topic in the order in which they were received.

    A record that was produced again after a producer's failure may follow once more.
    """
    for topic, partitions in evidence.topics.items():
        if not topic.startswith("ocpp.v"):
            continue
        for records in partitions:
            reached: dict[str, list[int]] = {}
            for record in records:
                connection, sequence = record["meta"]["connection_id"], record["meta"]["sequence"]
                seen = reached.setdefault(connection, [])
                verdict.expect(
                    not seen or sequence > seen[-1] or sequence in seen,
                    f"{topic}: connection {connection} has {sequence} behind {seen[-1:]}",
                )
                if sequence not in seen:
                    seen.append(sequence)


def _in_order(items: Sequence[Any]) -> bool:
    return all(first <= second for first, second in itertools.pairwise(items))


# Each fact once, with its energy and in its order


def check_sessions(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """Each transaction is in the table once, over, with its energy to the Wh, and a station's in their order."""
    found = _by(evidence.tables["sessions"], "station_id", "transaction_id")
    verdict.counted["sessions"] = len(evidence.tables["sessions"])
    verdict.expect(
        len(evidence.tables["sessions"]) == len(ledger.transactions),
        f"{len(ledger.transactions)} transactions, {len(evidence.tables['sessions'])} rows",
    )
    opened: dict[str, list[datetime]] = defaultdict(list)
    for transaction in ledger.transactions:
        mine = found[transaction.station_id, transaction.transaction_id]
        verdict.expect(len(mine) == 1, f"{_name(transaction)}: {len(mine)} rows")
        for row in mine:
            energy = Decimal(transaction.stop_wh or 0) - transaction.start_wh
            verdict.expect(not row["is_open"], f"{_name(transaction)}: still {row['state']}")
            verdict.expect(
                row["energy_wh"] == energy, f"{_name(transaction)}: {row['energy_wh']} Wh for {energy} ({row})"
            )
            opened[transaction.station_id].append(row["opened_at"])
    for station_id, instants in opened.items():
        verdict.expect(
            _in_order(instants), f"{station_id}: its sessions were opened in another order than it began them"
        )


def check_meter_values(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """Each event of a transaction is in the table once, at its station's time, in the order of its acknowledgement."""
    names = {row["session_id"]: (row["station_id"], row["transaction_id"]) for row in evidence.tables["sessions"]}
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in evidence.tables["meter_values"]:
        rows[names.get(row["session_id"], ("", ""))].append(row)
    verdict.counted["meter values"] = len(evidence.tables["meter_values"])
    for transaction in ledger.transactions:
        mine = rows.pop((transaction.station_id, transaction.transaction_id), [])
        by_event = _by(mine, "event", "happened_at")
        received = []
        for fact in sorted(transaction.events, key=lambda fact: fact.rank):
            kept = by_event.pop((_event(fact), _happened_at(fact)), [])
            verdict.expect(len(kept) == 1, f"{_name(transaction)}: {_event(fact)} is in meter_values {len(kept)} times")
            received += [row["received_at"] for row in kept]
        verdict.expect(not by_event, f"{_name(transaction)}: meter_values also has {list(by_event)[:3]}")
        verdict.expect(_in_order(received), f"{_name(transaction)}: its meter values are not in order")
    verdict.expect(not rows, f"meter values of nobody's transactions: {list(rows)[:3]}")


def _event(fact: Fact) -> str:
    return str(fact.payload["eventType"]) if fact.action == "TransactionEvent" else fact.action


def _happened_at(fact: Fact) -> datetime:
    text = fact.payload["meterValue"][0]["timestamp"] if fact.action == "MeterValues" else fact.payload["timestamp"]
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def check_session_events(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """Each session event once by its id, the sequence without a hole, the last energy as the tables have it."""
    energies = {row["session_id"]: row["energy_wh"] for row in evidence.tables["sessions"]}
    by_session: dict[str, list[Row]] = defaultdict(list)
    for event in _once(verdict, evidence, "csms.session-events", "event_id"):
        verdict.expect(event["session_id"] in energies, f"a session event of a session that is no row: {event}")
        by_session[event["session_id"]].append(event)
    verdict.expect(len(by_session) == len(ledger.transactions), f"{len(by_session)} sessions on csms.session-events")
    for session_id, mine in by_session.items():
        mine.sort(key=lambda event: int(event["sequence"]))
        sequences = [event["sequence"] for event in mine]
        verdict.expect(
            sequences == list(range(1, len(mine) + 1)), f"session {session_id}: sequence {sequences} has a hole"
        )
        kinds = Counter(event["kind"] for event in mine)
        verdict.expect(kinds["ended"] == 1, f"session {session_id}: {kinds['ended']} ended events ({kinds})")
        told = [event["energy_wh"] for event in mine if event["kind"] != "unattributed"][-1:]
        verdict.expect(
            told == [energies.get(session_id)],
            f"session {session_id}: {told} Wh on the topic, {energies.get(session_id)} in the table",
        )


def check_meter_samples(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """Each meter value of each transaction is told once by its id, and nothing else is."""
    told: Counter[tuple[Any, ...]] = Counter()
    for record in _once(verdict, evidence, "csms.meter-samples", "event_id"):
        for sample in record["samples"]:
            told[record["station_id"], record["transaction_id"], sample["at"], sample["value"]] += 1
    for transaction in ledger.transactions:
        for fact in transaction.events:
            for value in _values(fact.payload):
                key = (transaction.station_id, transaction.transaction_id, _happened_at(fact), value)
                count = told.pop(key, 0)
                verdict.expect(count == 1, f"{_name(transaction)}: sample {key[2:]} was told {count} times")
    verdict.expect(not told, f"meter samples that nobody sent: {list(told)[:3]}")


def check_bills(verdict: Verdict, evidence: Evidence) -> None:
    """Each session is billed once, a cent for each watt hour; each record stands in the table and on its topic."""
    charges = _by(evidence.tables["charges"], "session_id")
    cdrs = _by(evidence.tables["cdrs"], "session_id")
    told = {
        record["cdr_id"]: record["total_cost_excl_vat"] for record in _once(verdict, evidence, "csms.cdrs", "cdr_id")
    }
    for session in evidence.tables["sessions"]:
        session_id, energy = session["session_id"], session["energy_wh"]
        status = [row["status"] for row in charges.pop((session_id,), [])]
        verdict.expect(status == ["priced"], f"session {session_id}: billing says {status}")
        mine = cdrs.pop((session_id,), [])
        standing = sum(-1 if cdr["credit"] else 1 for cdr in mine)
        verdict.expect(standing == 1, f"session {session_id}: {standing} records stand ({len(mine)} in all)")
        cost = sum((cdr["total_excl"] for cdr in mine), Decimal(0))
        verdict.expect(cost == energy / 100, f"session {session_id}: {cost} EUR for {energy} Wh")
        for cdr in mine:
            kept, sent = cdr["total_excl"], told.pop(cdr["cdr_id"], None)
            verdict.expect(sent == kept, f"record {cdr['cdr_id']}: {kept} EUR in the table, {sent} on the topic")
    verdict.expect(not charges and not cdrs, f"bills of nobody's sessions: {[*charges, *cdrs][:3]}")
    verdict.expect(not told, f"records on csms.cdrs that are not in the table: {list(told)[:3]}")


def _values(payload: Row) -> Iterable[float]:
    """The registers in a CALL."""
    for name in ("meterStart", "meterStop"):
        if name in payload:
            yield float(payload[name])
    for value in payload.get("meterValue", ()):
        for sample in value["sampledValue"]:
            yield float(sample["value"])


def _once(verdict: Verdict, evidence: Evidence, topic: str, name: str) -> Iterable[Row]:
    """The distinct records of a topic; one that was produced again must be the same."""
    found: dict[str, Row] = {}
    for record in evidence.records(topic):
        before = found.setdefault(record[name], record)
        verdict.expect(record == before, f"{topic}: {record[name]} was produced with two contents")
    verdict.counted[topic] = len(found)
    return found.values()


# Stations


def check_stations(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """Each station is registered; its last status is the last that it told, in the table and on the topic."""
    registered = {row["station_id"]: row["registration_status"] for row in evidence.tables["stations"]}
    for station_id in ledger.versions:
        status = registered.get(station_id)
        verdict.expect(status == "Accepted", f"{station_id}: its registration is {status}")
    last = {}
    for fact in ledger.facts:
        if fact.action == "StatusNotification" and fact.acknowledged:
            payload = fact.payload
            key = (fact.station_id, payload.get("evseId", 0), payload["connectorId"])
            last[key] = payload.get("connectorStatus") or payload["status"]
    table = {_connector(row): row["status"] for row in evidence.tables["connectors"]}
    topic = {_connector(record): record["status"] for record in evidence.records("csms.station-status")}
    verdict.counted["connectors"] = len(table)
    for key, status in last.items():
        for place, kept in (("stations.connectors", table), ("csms.station-status", topic)):
            verdict.expect(kept.get(key) == status, f"{place}: {key} is {kept.get(key)}, and last told was {status}")


def _connector(row: Row) -> tuple[str, int, int]:
    return row["station_id"], row["evse_id"], row["connector_id"]


# Commands


def check_commands(verdict: Verdict, ledger: Ledger, evidence: Evidence) -> None:
    """No command that was taken is lost or without outcome; none came to another station, or twice to a connection."""
    known = {row["command_id"]: row for row in evidence.tables["commands"]}
    for command_id in ledger.accepted_commands:
        verdict.expect(command_id in known, f"command {command_id} was taken and is not known")
    told: dict[str, set[str]] = defaultdict(set)
    for event in evidence.records("csms.command-events"):
        told[event["command_id"]].add(event["stage"])
    for command_id, row in known.items():
        outcome = row["outcome"]
        verdict.counted[f"commands {outcome}"] += 1
        verdict.expect(outcome in _TERMINAL, f"command {command_id} {row['action']}: only {row['stage']}")
        verdict.expect(outcome in told[command_id], f"command {command_id}: nobody was told that it is {outcome}")
        if outcome == "answered":
            verdict.expect(command_id in ledger.commands, f"command {command_id} was answered and never received")
    for command_id, receipts in ledger.commands.items():
        verdict.expect(command_id in known, f"command {command_id} was received and is not known")
        addressee = known.get(command_id, {}).get("station_id")
        for receipt in receipts:
            verdict.expect(
                receipt.station_id == addressee, f"command {command_id} for {addressee} came to {receipt.station_id}"
            )
        for connection, count in Counter((receipt.station_id, receipt.connection) for receipt in receipts).items():
            verdict.expect(count == 1, f"command {command_id} came {count} times to connection {connection}")


# Sockets


def check_sockets(verdict: Verdict, connected: Sockets, left: Sockets) -> None:
    """Fleet, edges and router agree on who is connected: everybody after the last fault, nobody after the end."""
    for when, sockets in (("after the last fault", connected), ("after all have left", left)):
        held = Counter(sockets.fleet.values())
        for edge, count in sockets.edges.items():
            verdict.expect(
                count == held[edge],
                f"{when}: {edge} thinks that {count} sockets are open, the fleet holds {held[edge]}",
            )
        for station_id in sorted(sockets.fleet.keys() | sockets.router.keys()):
            holds, thinks = sockets.fleet.get(station_id), sockets.router.get(station_id)
            verdict.expect(holds == thinks, f"{when}: {station_id} is at {holds}, and the router thinks at {thinks}")
    verdict.counted["sockets"] = len(connected.fleet)


# Dead letters


def check_dead_letters(verdict: Verdict, evidence: Evidence) -> None:
    """The fleet sends nothing that could not be processed: there is no explanation for any."""
    for letter in evidence.records("csms.dead-letters"):
        problem = f"{letter['reason']}: {letter['topic']}-{letter['partition']}@{letter['offset']}, {letter['detail']}"
        verdict.expect(False, f"a dead letter of {letter['group']}, {problem}")
    for frame in evidence.records("ocpp.malformed"):
        verdict.expect(False, f"a malformed frame: {frame['error_code']} {frame['error_description']} {frame['frame']}")


def _by(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


def _name(transaction: Transaction) -> str:
    return f"{transaction.station_id} {transaction.version} #{transaction.number} ({transaction.transaction_id})"
