"""A car that stays after the stop: parking until it is unplugged."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.avro import meta_prefix
from busbar.avro.calls import call_encoder
from busbar.ocpp.versions import Version
from busbar.records import Record, StationCall
from services.billing.unplugged import DATA_TRANSFER_TOPIC, read_unplugged
from tests.unit.services.billing.test_telling import PARKING, V16, Displays, commands
from tests.unit.services.billing.world import MINUTE, SESSION_ID, T0, Session, run

VENDOR = "org.openchargealliance.costmsg"


def payload(minutes: float, **data: Any) -> dict[str, Any]:
    moment = f"2025-11-21T08:{int(minutes):02}:{round(minutes % 1 * 60):02}Z"
    told = {"transactionId": 4711, "timestamp": moment} | data
    return {"vendorId": VENDOR, "messageId": "ConnectorUnplugged", "data": orjson.dumps(told).decode()}


class Station(Displays):
    """With a display of the California set, where parking costs 0.10 a minute."""

    def __init__(self, quirk: str = "california") -> None:
        super().__init__(PARKING, quirk)

    def unplug(self, minutes: float, **data: Any) -> list[dict[str, Any]]:
        """The commands that the message leads to."""
        self.now_ms = T0 + round(minutes * MINUTE)
        prefix = meta_prefix("CS-1", "c1", "edge-0", 0, Version.V16)
        value = call_encoder(Version.V16, "DataTransfer")(prefix, 1, "m1", self.now_ms, payload(minutes, **data))
        event = self.processor.decode(Record(DATA_TRANSFER_TOPIC, 0, 0, 0, b"CS-1", value))
        state = run(self.processor.load(self.tables, [event]))
        results = list(self.processor.fold(state, event))
        self.tables.store(self.processor.store_call(state).arguments)
        self.processor.committed(state)
        self.results += results
        return commands(results)


class TestParking:
    def test_the_time_until_the_car_is_unplugged_is_parking(self) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        assert station.net() == Decimal("2.50")
        (final,) = station.unplug(25)
        assert orjson.loads(final["payload"]["data"])["cost"] == 4
        assert station.net() == Decimal("4.00")
        assert len(station.tables.cdrs) == 3
        row = station.session()
        assert (row["ended"], row["cdr_count"], row["status"]) == (T0 + 25 * MINUTE, 2, "priced")

    @pytest.mark.parametrize("restart", [False, True])
    def test_the_message_may_come_before_the_stop(self, restart: bool) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        assert station.unplug(25) == []
        if restart:
            station.restart()
        station.told(session.ended(10, 5000))
        assert station.net() == Decimal("4.00")
        assert len(station.tables.cdrs) == 1

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_later_correction_keeps_the_parking(self, restart: bool) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        station.unplug(25)
        if restart:
            station.restart()
        station.told(session.ended(10, 6000) | {"kind": "corrected"})
        assert station.net() == Decimal("4.50")

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_stop_that_moves_takes_the_parking_with_it(self, restart: bool) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        station.unplug(25)
        if restart:
            station.restart()
        station.told(session.ended(12, 5000) | {"kind": "corrected"})
        assert station.net() == Decimal("3.80")

    def test_the_same_message_again_changes_nothing(self) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        station.unplug(25)
        before = dict(station.tables.cdrs)
        assert station.unplug(25) == []
        station.restart()
        assert station.unplug(25) == []
        assert station.tables.cdrs == before

    def test_a_station_without_such_a_display_parks_nobody(self) -> None:
        station, session = Station("none"), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        assert station.unplug(25) == []
        assert station.net() == Decimal("2.50")

    def test_a_transaction_that_nobody_knows_is_left_alone(self) -> None:
        station = Station()
        assert station.unplug(25, transactionId=1) == []
        assert station.tables.sessions == {}

    def test_a_car_that_was_unplugged_before_the_stop_costs_nothing_more(self) -> None:
        station, session = Station(), Session(head=V16)
        station.told(session.started())
        station.told(session.ended(10, 5000))
        assert station.unplug(9.5) == []
        assert station.net() == Decimal("2.50")
        assert SESSION_ID in station.tables.sessions


class TestReading:
    def call(self, payload: dict[str, Any]) -> StationCall:
        return StationCall("CS-1", "c", "e", 0, Version.V16, 1, "m", T0 + 60 * MINUTE, "DataTransfer", payload)

    def test_ids_are_numbers_or_texts(self) -> None:
        for transaction_id in (4711, "4711"):
            found = read_unplugged(self.call(payload(10, transactionId=transaction_id)), 3)
            assert found is not None
            assert (found.partition, found.station_id, found.transaction_id) == (3, "CS-1", "4711")
            assert found.at_ms == T0 + 10 * MINUTE

    def test_a_time_that_cannot_be_is_that_of_the_message(self) -> None:
        for timestamp in ("2030-01-01T00:00:00Z", "soon"):
            found = read_unplugged(self.call(payload(10, timestamp=timestamp)), 0)
            assert found is not None
            assert found.at_ms == T0 + 60 * MINUTE

    @pytest.mark.parametrize(
        "change",
        [
            {"vendorId": "another"},
            {"messageId": None},
            {"data": None},
            {"data": "nonsense"},
            {"data": "[]"},
            {"data": '{"transactionId": true}'},
            {"data": "{}"},
        ],
    )
    def test_other_messages_are_none_of_ours(self, change: dict[str, Any]) -> None:
        assert read_unplugged(self.call(payload(10) | change), 0) is None
