"""Signed meter values (§3.5): byte for byte, read where the format is known, compared with what stands beside them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.sessions.signed import SignedReading, signed_registers
from tests.unit.services.sessions.world import HOUR, Station2x, Station16, World, iso

OCMF = (
    'OCMF|{"FV":"1.0","GI":"ABL SBC-301","PG":"T12345","RD":[{"TM":"2018-07-24T13:22:04,000+0200 S","TX":"B",'
    '"RV":2935.600,"RI":"1-b:1.8.0","RU":"kWh","EI":567,"ST":"G"},{"TX":"E","RV":2938.100}]}|{"SD":"887FABF407AC"}'
)


def reading(data: str, context: str = "Transaction.End") -> SignedReading:
    return SignedReading(0, context, data, "OCMF", "", "", 0)


def test_ocmf_is_read_with_members_that_later_readings_leave_out() -> None:
    registers = signed_registers(reading(OCMF))
    assert registers is not None
    assert (registers.begin_uwh, registers.end_uwh) == (2_935_600_000_000, 2_938_100_000_000)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "OCMF|",
        "OCMF|{}|{}",
        'OCMF|{"RD":5}|{}',
        'OCMF|{"RD":[{"RV":"x","RU":"kWh"}]}|{}',
        "0a0b0c",
        "{}",
        'OCMF|{"RD":[{"RV":1,"RU":"furlong"}]}|x',
        'OCMF|{"RD":[{"RV":1,"RU":"kWh","RI":"1-0:2.8.0"}]}|x',
    ],
)
def test_other_data_and_other_registers_are_not_read(data: str) -> None:
    assert signed_registers(reading(data)) is None


@pytest.mark.parametrize("obis", ["1-0:1.8.0", "1-b:1.8.0", "01-00:98.08.00.FF", "01-00:B2.08.00*FF", "1.8.0"])
def test_registers_of_imported_energy_are_known_by_their_obis_code(obis: str) -> None:
    assert signed_registers(reading(f'OCMF|{{"RD":[{{"TX":"E","RV":1.5,"RU":"kWh","RI":"{obis}"}}]}}|x')) is not None


def test_a_bare_ocmf_text_and_its_json_wrapper_of_1_6_are_stored_untouched() -> None:
    wrapper = {"signedMeterData": OCMF, "encodingMethod": "OCMF", "signingMethod": "ECDSA", "publicKey": "30 59"}
    for value, key in ((OCMF, ""), (orjson.dumps(wrapper).decode(), "30 59")):
        world, station = World(), Station16()
        out = world.batch(
            station.meter(samples=[{"value": value, "format": "SignedData", "context": "Transaction.End"}], connector=1)
        )
        stored = world.signed[0].reading
        assert (stored.data, stored.public_key, stored.encoding_method) == (OCMF, key, "OCMF")
        assert out.samples[0]["samples"] == []


def test_signed_data_is_told_byte_for_byte_with_the_event() -> None:
    world, station = World(), Station2x()
    signed = {"signedMeterData": OCMF + " ", "signingMethod": "", "encodingMethod": "OCMF", "publicKey": "K"}
    event = world.batch(
        station.started(samples=[{"value": 5.0, "context": "Transaction.Begin", "signedMeterValue": signed}])
    ).event
    told = event["signed_values"][0]
    assert (told["data"], told["public_key"], told["context"]) == (OCMF + " ", "K", "Transaction.Begin")


def test_data_of_an_unknown_format_is_kept_and_the_plain_value_counts() -> None:
    world, station = World(), Station2x()
    signed = {"signedMeterData": "AABBCC" * 9000, "signingMethod": "x", "encodingMethod": "EDL40", "publicKey": ""}
    for kind, seq_no, value in (("Started", 0, 100.0), ("Ended", 1, 400.0)):
        samples = [
            {"value": value, "context": f"Transaction.{'Begin' if seq_no == 0 else 'End'}", "signedMeterValue": signed}
        ]
        world.batch(station.event(kind, seq_no, seq_no * HOUR, samples=samples))
    event = world.out.events[-1]
    assert (event["energy_rung"], event["energy_wh"]) == ("transaction_registers", 300)
    assert "signed_unreadable" in event["flags"]
    assert len(world.signed[1].reading.data) == 54_000


def test_a_signed_register_that_differs_from_the_one_beside_it_is_flagged() -> None:
    world, station = World(), Station2x()

    def sample(context: str, mark: str, signed_kwh: str, value: float) -> list[dict[str, Any]]:
        data = f'OCMF|{{"RD":[{{"TX":"{mark}","RV":{signed_kwh},"RU":"kWh","RI":"1-0:1.8.0"}}]}}|x'
        signed = {"signedMeterData": data, "signingMethod": "", "encodingMethod": "OCMF", "publicKey": ""}
        return [{"value": value, "context": context, "signedMeterValue": signed}]

    world.batch(station.started(samples=sample("Transaction.Begin", "B", "1.000", 1000.0)))
    assert "signed_mismatch" not in world.flags()
    event = world.batch(station.ended(1, None, HOUR, samples=sample("Transaction.End", "E", "2.500", 2400.0))).event
    assert (event["energy_rung"], event["energy_wh"]) == ("signed", 1500)
    assert "signed_mismatch" in event["flags"]


def test_another_public_key_than_before_is_flagged() -> None:
    world, station = World(), Station2x()

    def start(transaction_id: str, key: str, ms: int) -> None:
        signed = {"signedMeterData": OCMF, "signingMethod": "", "encodingMethod": "OCMF", "publicKey": key}
        samples = [{"value": 5.0, "context": "Transaction.Begin", "signedMeterValue": signed}]
        world.batch(station.started(samples=samples, transaction_id=transaction_id, ms=ms))

    start("one", "KEY", 0)
    start("two", "KEY", HOUR)
    assert "public_key_changed" not in world.flags()
    start("three", "OTHER", 2 * HOUR)
    assert (
        "public_key_changed" in world.out.events[-1]["flags"] or "public_key_changed" in world.out.events[-2]["flags"]
    )


def test_only_signed_values_at_the_end_still_give_the_signed_energy() -> None:
    """Begin and end inside one OCMF at Transaction.End only."""
    world, station = World(), Station16()
    number = world.batch(station.start(2_935_600)).reply["transactionId"]
    sampled = [{"value": OCMF, "format": "SignedData", "context": "Transaction.End"}]
    event = world.batch(
        station.stop(number, 2_938_100, transactionData=[{"timestamp": iso(HOUR), "sampledValue": sampled}])
    ).event
    assert (event["energy_rung"], event["energy_wh"]) == ("signed", 2_500)
