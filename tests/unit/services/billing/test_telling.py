"""What the stations of sessions are told of their cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.avro import decode
from busbar.ocpp.validation import validate_request
from busbar.ocpp.versions import Version
from busbar.records import Result
from busbar.tariffs import TariffBook
from services.billing.processor import BillingProcessor
from services.billing.running import SILENT_MS, Cadence
from services.billing.telling import COMMAND_MS, Telling
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.billing.world import MINUTE, T0, Session, World, configuration, run

BY_ENERGY = tariff_json(element(component("ENERGY", "0.50")))
BY_TIME = tariff_json(element(component("TIME", "6")))
PARKING = tariff_json(element(component("ENERGY", "0.50"), component("PARKING_TIME", "6")))
AT_HALF_PAST = tariff_json(
    element(component("ENERGY", "0.25"), start_time="08:30", end_time="09:00"), element(component("ENERGY", "0.50"))
)
"""Sessions begin at 08:00."""
V16 = {"ocpp_version": "1.6", "transaction_id": "4711"}


class Displays(World):
    """A billing service whose commands are looked at, on a clock of the test's."""

    def __init__(self, tariff: dict[str, Any], quirk: str = "", **telling: Any) -> None:
        self.now_ms = T0
        super().__init__({"T/1": tariff}, telling=Telling(**telling))
        if quirk:
            self.tables.cost_quirks["CS-1"] = quirk

    def restart(self) -> None:
        book = TariffBook()
        book.accept(self.configuration)
        self.processor = BillingProcessor(book, self.policy, now_ms=lambda: self.now_ms)

    def told(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """The commands that a batch of these events leads to, at the time of the last one."""
        self.now_ms = max(event["received_at"] for event in events)
        before = len(self.results)
        self.batch(*events)
        return commands(self.results[before:])

    def tick(self, minutes: float) -> list[dict[str, Any]]:
        """The commands that the clock leads to."""
        self.now_ms = T0 + round(minutes * MINUTE)
        looks = run(self.processor.due(None, [0], self.now_ms))
        state = run(self.processor.load(self.tables, looks))
        results = [result for look in looks for result in self.processor.fold(state, look)]
        self.tables.store(self.processor.store_call(state).arguments)
        self.processor.committed(state)
        return commands(results)


def commands(results: list[Result]) -> list[dict[str, Any]]:
    found = []
    for result in results:
        if result.topic == "csms.commands":
            value = decode(result.value)[1]
            value["payload"] = orjson.loads(value["payload"])
            version = Version.V16 if value["action"] == "DataTransfer" else Version.V201
            validate_request(version, value["action"], value["payload"], strict=True)
            found.append(value)
    return found


def costs(told: list[dict[str, Any]]) -> list[Any]:
    return [each["payload"]["totalCost"] for each in told]


class TestCostUpdated:
    def test_a_cost_is_told_at_the_start_and_then_by_the_interval(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        (first,) = world.told(session.started())
        assert (first["action"], first["station_id"], first["requested_by"]) == ("CostUpdated", "CS-1", "billing")
        assert first["payload"] == {"totalCost": 0, "transactionId": "tx-1"}
        assert first["deadline_at"] - first["requested_at"] == COMMAND_MS
        assert world.told(session.measured(0.5, 500)) == []
        assert costs(world.told(session.measured(1, 1000))) == [0.5]
        assert world.told(session.measured(2, 1000)) == []  # the same cost
        assert costs(world.told(session.measured(2.5, 1500))) == [0.75]

    def test_a_batch_of_many_minutes_tells_by_the_minute(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        events = [session.started(), *(session.measured(minutes / 2, 100 * minutes) for minutes in range(1, 9))]
        world.now_ms = events[-1]["received_at"]
        told = world.told(*events)
        # What is out of date by the time of the batch is not told at all.
        assert costs(told) == [0.35]

    def test_a_change_of_the_cost_by_the_configured_amount_is_told_at_once(self) -> None:
        world, session = Displays(BY_ENERGY, cadence=Cadence(60_000, Decimal("1.00"))), Session()
        world.told(session.started())
        assert world.told(session.measured(0.1, 1900)) == []
        assert costs(world.told(session.measured(0.2, 2000))) == [1]

    def test_no_interval_tells_changes_of_the_price_only(self) -> None:
        world, session = Displays(AT_HALF_PAST, cadence=Cadence(0)), Session()
        world.told(session.started())
        assert world.told(session.measured(29, 10_000)) == []
        assert costs(world.tick(30.2)) == [5]

    def test_another_tariff_is_told_at_once(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        world.configuration = configuration({"T/1": BY_ENERGY, "D/1": tariff_json(element(component("ENERGY", "5")))})
        world.restart()
        world.told(session.started())
        assert world.told(session.measured(0.5, 500)) == []
        changed = [{"at": T0 + MINUTE // 2, "tariff_id": "D", "tariff_version": 1}]
        assert costs(world.told(session.event(0.6, tariff_changes=changed))) == [0.25]
        assert costs(world.told(session.measured(2, 1500, tariff_changes=changed))) == [5.25]

    def test_a_tariff_that_is_missing_is_named(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        changed = [{"at": T0 + MINUTE, "tariff_id": "GONE", "tariff_version": 7}]
        world.batch(session.started(), session.ended(10, 5000, tariff_changes=changed))
        row = world.session()
        assert (row["status"], row["reason"]) == ("failed", "version 7 of its tariff GONE does not exist")

    def test_the_last_cost_of_a_session_is_not_ours_to_tell(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        world.told(session.started())
        assert world.told(session.ended(10, 5000)) == []

    @pytest.mark.parametrize("quirk", ["none"])
    def test_a_station_that_wants_none_gets_none(self, quirk: str) -> None:
        world, session = Displays(BY_ENERGY, quirk), Session()
        assert world.told(session.started(), session.measured(1, 100)) == []

    def test_nothing_is_told_of_what_has_no_tariff_or_was_buffered_or_is_of_1_6(self) -> None:
        world = Displays(BY_ENERGY)
        assert world.told(Session(tariff="").started()) == []
        assert world.told(Session(session_id="6f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55").started(offline=True)) == []
        assert world.told(Session(session_id="7f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55", head=V16).started()) == []

    def test_a_session_whose_tariff_is_missing_is_no_reason_to_stop(self) -> None:
        world = Displays(BY_ENERGY)
        assert world.told(Session(tariff="GONE/1").started()) == []

    def test_events_that_come_again_are_told_once_and_under_the_same_id(self) -> None:
        session = Session()
        events = [session.started(), session.measured(1, 1000)]
        ids = []
        for _ in range(2):
            world = Displays(BY_ENERGY)
            first, second = world.told(events[0]), world.told(events[1])
            assert world.told(*events) == []
            ids.append([each["command_id"] for each in (*first, *second)])
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 2


class TestTheClock:
    def test_time_is_told_without_anything_being_heard(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        assert world.tick(0.9) == []
        (told,) = world.tick(1.01)
        assert told["payload"]["totalCost"] == 0.1
        assert told["requested_at"] == T0 + 141 + MINUTE
        assert world.tick(1.02) == []
        assert costs(world.tick(2.01)) == [0.2]

    def test_what_was_heard_meanwhile_moves_the_look(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        world.told(session.measured(1.5, 100))
        assert world.tick(2.4) == []
        assert costs(world.tick(2.6)) == [0.25]

    def test_energy_alone_is_not_told_by_the_clock(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        world.told(session.started())
        assert world.tick(10) == []

    def test_a_look_that_comes_late_tells_what_it_costs_by_then(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        assert costs(world.tick(5)) == [0.5]
        assert costs(world.tick(6.1)) == [0.6]

    def test_a_session_that_has_ended_is_not_looked_at(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        world.told(session.ended(0.5, 100))
        assert world.tick(1.5) == []

    def test_a_session_that_is_silent_is_left_alone_until_it_is_heard(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        minutes = SILENT_MS // MINUTE
        told = [world.tick(minute + 0.5) for minute in range(1, minutes + 5)]
        assert [len(each) for each in told] == [1] * minutes + [0] * 4
        world.told(session.measured(minutes + 10, 100))
        assert len(world.tick(minutes + 11.5)) == 1

    def test_a_process_that_takes_over_tells_when_it_hears_of_the_session(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started())
        world.restart()
        assert world.tick(5) == []
        assert costs(world.told(session.measured(6, 100))) == [0.6]


class TestAnswers:
    """sessions answers every TransactionEvent of 2.x with the cost: what it tells is not told again."""

    def test_what_the_answers_tell_is_not_told_again(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        assert world.told(session.started(seq_no=0)) == []
        assert world.told(session.measured(2, 1000, seq_no=1)) == []
        # A meter value outside of TransactionEvent is answered with nothing.
        assert costs(world.told(session.measured(4, 2000))) == [1]

    def test_the_clock_tells_only_what_no_answer_has_told_for_an_interval(self) -> None:
        world, session = Displays(BY_TIME), Session()
        world.told(session.started(seq_no=0))
        world.told(session.measured(0.5, 100, seq_no=1))
        assert world.tick(1.2) == []
        assert costs(world.tick(1.6)) == [0.15]
        assert costs(world.tick(2.6)) == [0.25]

    def test_answers_without_a_cost_do_not_count(self) -> None:
        world, session = Displays(BY_ENERGY), Session()
        start, late = session.started(seq_no=0), session.measured(1, 500, seq_no=3)
        # Out of order: sessions is not certain of the cost.
        world.told(start, late, session.measured(0.5, 200, seq_no=2))
        assert costs(world.told(session.measured(3, 2000, seq_no=4))) == [1]

    def test_a_display_of_the_california_set_is_told_all_the_same(self) -> None:
        world, session = Displays(BY_ENERGY, "california"), Session()
        assert len(world.told(session.started(seq_no=0))) == 1


class TestCalifornia:
    def test_a_display_is_told_prices_and_where_they_change(self) -> None:
        world, session = Displays(AT_HALF_PAST, "california"), Session(head=V16)
        (first,) = world.told(session.started())
        assert (first["action"], first["payload"]["messageId"]) == ("DataTransfer", "RunningCost")
        data = orjson.loads(first["payload"]["data"])
        assert data == {
            "transactionId": 4711,
            "cost": 0,
            "timestamp": "2025-11-21T08:00:00.141Z",
            "meterValue": 1_000_000,
            "state": "Charging",
            "chargingPrice": {"kWhPrice": 0.5},
            "nextPeriod": {"atTime": "2025-11-21T08:30:00.000Z", "chargingPrice": {"kWhPrice": 0.25}},
            "triggerMeterValue": {"atTime": "2025-11-21T08:30:00.000Z"},
        }
        (edge,) = world.tick(30.5)
        assert orjson.loads(edge["payload"]["data"])["chargingPrice"] == {"kWhPrice": 0.25}

    def test_a_display_is_told_when_the_car_parks(self) -> None:
        world, session = Displays(PARKING, "california"), Session(head=V16)
        world.told(session.started())
        assert world.told(session.measured(0.2, 100)) == []
        (told,) = world.told(session.measured(0.4, 200, "SuspendedEV"))
        data = orjson.loads(told["payload"]["data"])
        assert (data["state"], data["cost"], data["meterValue"]) == ("Idle", 0.1, 1_000_200)

    def test_a_display_is_told_the_final_cost_once(self) -> None:
        world = Displays(PARKING, "california", receipt_url="https://pay.example/{session_id}")
        session = Session(head=V16)
        world.told(session.started())
        (final,) = world.told(session.ended(10, 5000))
        data = orjson.loads(final["payload"]["data"])
        assert final["payload"]["messageId"] == "FinalCost"
        assert data["cost"] == 2.5
        assert data["priceText"] == "EUR 2.50, 5.00 kWh in 0:10"
        assert data["qrCodeText"] == f"https://pay.example/{session.session_id}"
        corrected = session.ended(10, 6000) | {"kind": "corrected"}
        assert world.told(corrected) == []
        assert len(world.tables.cdrs) == 3

    def test_a_session_that_was_buffered_has_nobody_before_the_display(self) -> None:
        world, session = Displays(BY_ENERGY, "california"), Session(head=V16)
        world.told(session.started())
        late = session.ended(10, 5000)
        assert world.told(late | {"received_at": late["received_at"] + 11 * MINUTE}) == []
        assert len(world.tables.cdrs) == 1

    def test_on_2_x_the_same_comes_as_custom_data(self) -> None:
        world, session = Displays(AT_HALF_PAST, "california"), Session()
        (first,) = world.told(session.started())
        assert first["action"] == "CostUpdated"
        custom = first["payload"]["customData"]
        assert (custom["vendorId"], custom["state"]) == ("org.openchargealliance.costmsg", "Charging")

    def test_an_id_of_1_6_that_is_no_number_is_told_nothing(self) -> None:
        world = Displays(BY_ENERGY, "california")
        session = Session(head={**V16, "transaction_id": "x"})
        assert world.told(session.started()) == []
        assert world.told(session.ended(1, 100)) == []
