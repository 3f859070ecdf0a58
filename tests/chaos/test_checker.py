"""The checker notices: a world in which all agrees, and one wrong thing at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.checker import Verdict, judge
from tests.chaos.evidence import TABLES, Evidence, Row
from tests.chaos.ledger import Fact, Ledger, Ordeal, Receipt, Sockets, Transaction

OLD, NEW = "CHAOS-16", "CHAOS-201"
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def text(second: int) -> str:
    return at(second).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def sampled(second: int, value: Any) -> list[Row]:
    return [{"timestamp": text(second), "sampledValue": [{"value": value}]}]


class World:
    """A station of 1.6 and one of 2.0.1, each with a transaction, and what the system made of them."""

    def __init__(self) -> None:
        self.ledger = Ledger(versions={OLD: "1.6", NEW: "2.0.1"})
        self.evidence = Evidence(tables={name: [] for name in TABLES})
        sockets = {OLD: "edge-0", NEW: "edge-1"}
        self.connected = Sockets(sockets, {"edge-0": 1, "edge-1": 1}, dict(sockets))
        self.left = Sockets({}, {"edge-0": 0, "edge-1": 0}, {})
        self._sequences = dict.fromkeys((OLD, NEW), 0)
        self.old_station()
        self.new_station()
        for station_id in (OLD, NEW):
            self.evidence.tables["stations"].append({"station_id": station_id, "registration_status": "Accepted"})
            self.ledger.accepted_commands[f"command-{station_id}"] = station_id
            self.ledger.commands[f"command-{station_id}"] = [Receipt(station_id, 1)]
            row = {"station_id": station_id, "action": "ClearCache", "stage": "answered", "outcome": "answered"}
            self.evidence.tables["commands"].append({"command_id": f"command-{station_id}", **row})
            for stage in ("dispatched", "sent", "answered"):
                self.add("csms.command-events", {"command_id": f"command-{station_id}", "stage": stage})

    def add(self, topic: str, record: Row) -> None:
        self.evidence.topics.setdefault(topic, [[]])[0].append(record)

    def fact(self, station_id: str, action: str, payload: Row) -> Fact:
        """An acknowledged CALL, in the ledger and in its topic."""
        fact = Fact(station_id, action, payload, sendings=1)
        self.ledger.facts.append(fact)
        self.ledger.acknowledge(fact, {})
        self._sequences[station_id] += 1
        meta = {
            "station_id": station_id, "connection_id": f"c-{station_id}", "sequence": self._sequences[station_id],
        }  # fmt: skip
        topic = f"ocpp.{'v16' if station_id == OLD else 'v201'}.{action}"
        self.add(topic, {"meta": meta, "payload": copy.deepcopy(payload)})
        return fact

    def status(self, station_id: str, payload: Row, evse_id: int, status: str) -> None:
        self.fact(station_id, "StatusNotification", payload)
        row = {"station_id": station_id, "evse_id": evse_id, "connector_id": 1, "status": status}
        self.evidence.tables["connectors"] = [
            other for other in self.evidence.tables["connectors"] if other["station_id"] != station_id
        ]
        self.evidence.tables["connectors"].append(row)
        self.add("csms.station-status", dict(row))

    def transaction(self, station_id: str, transaction_id: str, events: list[tuple[str, int, float]]) -> None:
        """What the system makes of a transaction's events: name, second and register."""
        session_id = f"session-{station_id}"
        key = {"session_id": session_id, "station_id": station_id}
        energy = Decimal(int(events[-1][2] - events[0][2]))
        row = {**key, "transaction_id": transaction_id, "state": "ended", "is_open": False, "energy_wh": energy}
        self.evidence.tables["sessions"].append({**row, "opened_at": at(1)})
        self.evidence.tables["charges"].append({**key, "status": "priced"})
        # It was billed for half of its energy first, which was taken back.
        for name, credit, share in (("1", False, 2), ("1-C", True, -2), ("2", False, 1)):
            cdr = {"cdr_id": f"{session_id}-{name}", "session_id": session_id, "credit": credit}
            self.evidence.tables["cdrs"].append({**cdr, "total_excl": energy / 100 / share})
            self.add("csms.cdrs", {"cdr_id": cdr["cdr_id"], "total_cost_excl_vat": energy / 100 / share})
        for number, (event, second, value) in enumerate(events, 1):
            row = {**key, "event": event, "happened_at": at(second), "received_at": at(second)}
            self.evidence.tables["meter_values"].append(row)
            kind = {1: "started", len(events): "ended"}.get(number, "updated")
            told = {"session_id": session_id, "event_id": f"{session_id}/{number}", "sequence": number, "kind": kind}
            self.add("csms.session-events", {**told, "energy_wh": Decimal(int(value - events[0][2]))})
            sample = {"at": at(second), "value": value}
            record = {"station_id": station_id, "transaction_id": transaction_id, "samples": [sample]}
            self.add("csms.meter-samples", {"event_id": f"{session_id}/s{number}", **record})

    def old_station(self) -> None:
        self.fact(OLD, "BootNotification", {"chargePointVendor": "Chaos"})
        transaction = Transaction(OLD, "1.6", 0, 1000, "77", 3000, text(1))
        self.ledger.transactions.append(transaction)
        start = {"connectorId": 1, "idTag": "CHAOS", "meterStart": 1000, "timestamp": text(1)}
        middle = {"connectorId": 1, "transactionId": 77, "meterValue": sampled(2, "2000")}
        stop = {"transactionId": 77, "meterStop": 3000, "timestamp": text(3)}
        for action, payload in (("StartTransaction", start), ("MeterValues", middle), ("StopTransaction", stop)):
            transaction.events.append(self.fact(OLD, action, payload))
        events = [("StartTransaction", 1, 1000.0), ("MeterValues", 2, 2000.0), ("StopTransaction", 3, 3000.0)]
        self.transaction(OLD, "77", events)
        for second, status in ((4, "Finishing"), (5, "Available")):
            payload = {"connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": text(second)}
            self.status(OLD, payload, 0, status)

    def new_station(self) -> None:
        self.fact(NEW, "BootNotification", {"reason": "PowerUp"})
        transaction = Transaction(NEW, "2.0.1", 0, 500, "T-1", 900, text(1))
        self.ledger.transactions.append(transaction)
        events = [("Started", 1, 500.0), ("Updated", 2, 700.0), ("Ended", 3, 900.0)]
        for number, (kind, second, value) in enumerate(events):
            payload = {
                "eventType": kind, "seqNo": number, "timestamp": text(second),
                "transactionInfo": {"transactionId": "T-1"}, "meterValue": sampled(second, value),
            }  # fmt: skip
            transaction.events.append(self.fact(NEW, "TransactionEvent", payload))
        self.transaction(NEW, "T-1", events)
        for second, status in ((4, "Occupied"), (5, "Available")):
            payload = {"evseId": 1, "connectorId": 1, "connectorStatus": status, "timestamp": text(second)}
            self.status(NEW, payload, 1, status)

    # For those who doctor it

    def records(self, topic: str) -> list[Row]:
        return self.evidence.topics[topic][0]

    def rows(self, table: str) -> list[Row]:
        return self.evidence.tables[table]

    def verdict(self) -> Verdict:
        return judge(Ordeal(self.ledger, self.connected, self.left), self.evidence)


def test_in_a_world_in_which_all_agrees_every_invariant_holds() -> None:
    verdict = World().verdict()
    assert not verdict.problems
    assert "every invariant holds" in str(verdict)


def test_what_was_produced_again_is_no_problem() -> None:
    world = World()
    for topic in world.evidence.topics:
        records = world.records(topic)
        records.extend(copy.deepcopy(records[-2:]))
    assert not world.verdict().problems


Doctoring = Callable[[World], object]


def lose_an_acknowledged_event(world: World) -> None:
    del world.records("ocpp.v201.TransactionEvent")[1]


def lose_one_of_two_acknowledged_sendings(world: World) -> None:
    next(fact for fact in world.ledger.facts if fact.action == "MeterValues").replies.append({})


def never_acknowledge(world: World) -> None:
    world.ledger.facts[0].replies.clear()


def put_the_log_out_of_order(world: World) -> None:
    world.records("ocpp.v16.StatusNotification").reverse()


def lose_a_session(world: World) -> None:
    del world.rows("sessions")[0]


def double_a_session(world: World) -> None:
    world.rows("sessions").append({**world.rows("sessions")[0], "session_id": "session-2"})


def leave_a_session_open(world: World) -> None:
    world.rows("sessions")[1] |= {"is_open": True, "state": "open"}


def lose_a_watt_hour(world: World) -> None:
    world.rows("sessions")[0]["energy_wh"] -= 1


def open_sessions_in_another_order(world: World) -> None:
    world.ledger.transactions.append(copy.deepcopy(world.ledger.transactions[1]))
    world.ledger.transactions[-1].transaction_id = "T-2"
    world.rows("sessions").append({**world.rows("sessions")[1], "transaction_id": "T-2", "opened_at": at(0)})


def double_a_meter_value(world: World) -> None:
    world.rows("meter_values").append(world.rows("meter_values")[1])


def lose_a_meter_value(world: World) -> None:
    del world.rows("meter_values")[1]


def invent_a_meter_value(world: World) -> None:
    world.rows("meter_values").append({**world.rows("meter_values")[1], "happened_at": at(9)})


def give_a_meter_value_to_nobody(world: World) -> None:
    world.rows("meter_values").append({**world.rows("meter_values")[1], "session_id": "another"})


def store_meter_values_out_of_order(world: World) -> None:
    world.rows("meter_values")[1]["received_at"] = at(9)


def tell_a_session_event_with_two_contents(world: World) -> None:
    records = world.records("csms.session-events")
    records.append({**records[0], "kind": "updated"})


def lose_a_session_event(world: World) -> None:
    del world.records("csms.session-events")[1]


def tell_an_end_twice(world: World) -> None:
    last = world.records("csms.session-events")[-1]
    world.add("csms.session-events", {**last, "event_id": "again", "sequence": 4})


def tell_another_energy(world: World) -> None:
    world.records("csms.session-events")[-1]["energy_wh"] += 1


def tell_of_a_session_that_is_no_row(world: World) -> None:
    world.add("csms.session-events", {**world.records("csms.session-events")[0], "session_id": "no", "event_id": "no"})


def tell_a_sample_twice(world: World) -> None:
    world.add("csms.meter-samples", {**world.records("csms.meter-samples")[1], "event_id": "again"})


def lose_a_sample(world: World) -> None:
    del world.records("csms.meter-samples")[0]


def invent_a_sample(world: World) -> None:
    record = {**world.records("csms.meter-samples")[1], "event_id": "more", "samples": [{"at": at(9), "value": 1.0}]}
    world.add("csms.meter-samples", record)


def bill_twice(world: World) -> None:
    world.rows("cdrs").append({**world.rows("cdrs")[2], "cdr_id": "again"})
    world.add("csms.cdrs", {"cdr_id": "again", "total_cost_excl_vat": world.rows("cdrs")[2]["total_excl"]})


def bill_nothing(world: World) -> None:
    world.rows("charges")[0]["status"] = "unpriced"


def bill_too_much(world: World) -> None:
    world.rows("cdrs")[2]["total_excl"] += Decimal("0.01")


def bill_nobody(world: World) -> None:
    world.rows("cdrs").append({**world.rows("cdrs")[2], "session_id": "nobody"})


def keep_a_bill_secret(world: World) -> None:
    del world.records("csms.cdrs")[2]


def tell_of_a_bill_that_is_no_row(world: World) -> None:
    world.add("csms.cdrs", {"cdr_id": "invented", "total_cost_excl_vat": Decimal(1)})


def forget_a_station(world: World) -> None:
    del world.rows("stations")[0]


def keep_an_older_status(world: World) -> None:
    world.rows("connectors")[0]["status"] = "Finishing"


def tell_an_older_status_last(world: World) -> None:
    world.records("csms.station-status").reverse()


def lose_a_command(world: World) -> None:
    del world.rows("commands")[0]


def leave_a_command_without_outcome(world: World) -> None:
    world.rows("commands")[0] |= {"stage": "sent", "outcome": None}


def answer_a_command_that_never_arrived(world: World) -> None:
    del world.ledger.commands[f"command-{OLD}"]


def tell_nobody_of_an_outcome(world: World) -> None:
    del world.records("csms.command-events")[2]


def send_a_command_to_another_station(world: World) -> None:
    world.ledger.commands[f"command-{OLD}"][0].station_id = NEW


def send_a_command_twice(world: World) -> None:
    world.ledger.commands[f"command-{OLD}"].append(Receipt(OLD, 1))


def send_a_command_of_nobody(world: World) -> None:
    world.ledger.commands["unheard-of"] = [Receipt(OLD, 1)]


def answer_nobody(world: World) -> None:
    world.ledger.violations.append(f"{OLD}: stray reply [3,'x',{{}}]")


def keep_a_dead_socket(world: World) -> None:
    world.connected.edges["edge-0"] = 2


def lose_a_socket(world: World) -> None:
    world.connected.edges["edge-1"] = 0


def believe_a_station_elsewhere(world: World) -> None:
    world.connected.router[OLD] = "edge-1"


def believe_a_station_offline(world: World) -> None:
    del world.connected.router[OLD]


def keep_a_socket_of_one_who_left(world: World) -> None:
    world.left.edges["edge-0"] = 1


def believe_in_one_who_left(world: World) -> None:
    world.left.router[OLD] = "edge-0"


def write_a_dead_letter(world: World) -> None:
    letter = {"topic": "t", "partition": 0, "offset": 1, "group": "sessions", "reason": "undecodable", "detail": "x"}
    world.add("csms.dead-letters", letter)


def refuse_a_frame(world: World) -> None:
    world.add("ocpp.malformed", {"frame": "[]", "error_code": "FormationViolation", "error_description": "x"})


@pytest.mark.parametrize(
    ("doctor", "problem"),
    [
        (lose_an_acknowledged_event, "acknowledged 1 times, 0 kept"),
        (lose_one_of_two_acknowledged_sendings, "acknowledged 2 times, 1 kept"),
        (never_acknowledge, "BootNotification was never acknowledged"),
        (put_the_log_out_of_order, "connection c-CHAOS-16 has 5 behind [6]"),
        (lose_a_session, "0 rows"),
        (double_a_session, "2 rows"),
        (leave_a_session_open, "still open"),
        (lose_a_watt_hour, "1999 Wh for 2000"),
        (open_sessions_in_another_order, "opened in another order"),
        (double_a_meter_value, "MeterValues is in meter_values 2 times"),
        (lose_a_meter_value, "MeterValues is in meter_values 0 times"),
        (invent_a_meter_value, "meter_values also has"),
        (give_a_meter_value_to_nobody, "nobody's transactions"),
        (store_meter_values_out_of_order, "meter values are not in order"),
        (tell_a_session_event_with_two_contents, "produced with two contents"),
        (lose_a_session_event, "has a hole"),
        (tell_an_end_twice, "2 ended events"),
        (tell_another_energy, "on the topic, 400 in the table"),
        (tell_of_a_session_that_is_no_row, "a session that is no row"),
        (tell_a_sample_twice, "was told 2 times"),
        (lose_a_sample, "was told 0 times"),
        (invent_a_sample, "meter samples that nobody sent"),
        (bill_twice, "2 records stand"),
        (bill_nothing, "billing says ['unpriced']"),
        (bill_too_much, "20.01 EUR for 2000 Wh"),
        (bill_nobody, "bills of nobody's sessions"),
        (keep_a_bill_secret, "EUR in the table, None on the topic"),
        (tell_of_a_bill_that_is_no_row, "records on csms.cdrs that are not in the table"),
        (forget_a_station, "its registration is None"),
        (keep_an_older_status, "stations.connectors: ('CHAOS-16', 0, 1) is Finishing"),
        (tell_an_older_status_last, "csms.station-status: "),
        (lose_a_command, "was taken and is not known"),
        (leave_a_command_without_outcome, "only sent"),
        (answer_a_command_that_never_arrived, "answered and never received"),
        (tell_nobody_of_an_outcome, "nobody was told that it is answered"),
        (send_a_command_to_another_station, "for CHAOS-16 came to CHAOS-201"),
        (send_a_command_twice, "came 2 times to connection"),
        (send_a_command_of_nobody, "was received and is not known"),
        (answer_nobody, "stray reply"),
        (keep_a_dead_socket, "thinks that 2 sockets are open, the fleet holds 1"),
        (lose_a_socket, "thinks that 0 sockets are open, the fleet holds 1"),
        (believe_a_station_elsewhere, "at edge-0, and the router thinks at edge-1"),
        (believe_a_station_offline, "at edge-0, and the router thinks at None"),
        (keep_a_socket_of_one_who_left, "after all have left: edge-0 thinks that 1"),
        (believe_in_one_who_left, "after all have left: CHAOS-16 is at None"),
        (write_a_dead_letter, "a dead letter of sessions, undecodable: t-0@1"),
        (refuse_a_frame, "a malformed frame: FormationViolation"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_one_wrong_thing_is_noticed(doctor: Doctoring, problem: str) -> None:
    world = World()
    doctor(world)
    problems = world.verdict().problems
    assert any(problem in each for each in problems), problems
