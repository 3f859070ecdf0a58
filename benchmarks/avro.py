"""What encoding and decoding cost, next to fastavro, in one run: `python -m benchmarks.avro`.

Times are CPU microseconds of this thread per value, the best of several rounds, so that other work on the machine
hardly shows. The values of one schema differ from each other as those of a station do.
"""

from __future__ import annotations

import copy
import io
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro

from busbar.avro import call_encoder, decode, decode_call, encode, meta_prefix
from busbar.avro.examples import example_value
from busbar.avro.lock import shipped_lock
from busbar.ocpp.versions import Version

VALUES = 200
ROUNDS = 15

MEASURANDS = (
    ("Energy.Active.Import.Register", None, "Wh"),
    ("Power.Active.Import", None, "W"),
    *(("Current.Import", phase, "A") for phase in ("L1", "L2", "L3")),
    *(("Voltage", f"{phase}-N", "V") for phase in ("L1", "L2", "L3")),
    *(("Power.Active.Import", phase, "W") for phase in ("L1", "L2", "L3")),
    ("Temperature", None, "Celsius"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    title: str
    size: int
    ours: tuple[Callable[[], object], Callable[[], object]]
    theirs: tuple[Callable[[], object], Callable[[], object]]


def sampled_values(number: int, *, is_v16: bool) -> list[dict[str, Any]]:
    """Twelve sampled values; `number` makes them differ."""
    samples = []
    for index, (measurand, phase, unit) in enumerate(MEASURANDS):
        value = 230.125 * (index + 1) + number / 8
        sample: dict[str, Any] = {"value": f"{value:.3f}" if is_v16 else value, "context": "Sample.Periodic"}
        sample |= {"measurand": measurand, "location": "Outlet"} | ({"phase": phase} if phase else {})
        sample |= {"unit": unit} if is_v16 else {"unitOfMeasure": {"unit": unit}}
        samples.append(sample)
    return samples


def meter_values(number: int) -> dict[str, Any]:
    """A 1.6 MeterValues with twelve sampled values."""
    meter_value = {
        "timestamp": f"2026-05-04T10:11:{number % 60:02}Z",
        "sampledValue": sampled_values(number, is_v16=True),
    }
    return {"connectorId": 1, "transactionId": 4711, "meterValue": [meter_value]}


def transaction_event(number: int) -> dict[str, Any]:
    """A 2.0.1 TransactionEvent with twelve sampled values."""
    timestamp = f"2026-05-04T10:11:{number % 60:02}Z"
    return {
        "eventType": "Updated",
        "timestamp": timestamp,
        "triggerReason": "MeterValuePeriodic",
        "seqNo": number,
        "transactionInfo": {
            "transactionId": "7f3c8a52-0d3f-4c36-9d8f-3f2b6a1c9e00",
            "chargingState": "Charging",
        },
        "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": timestamp, "sampledValue": sampled_values(number, is_v16=False)}],
    }


def call_case(title: str, version: Version, action: str, payloads: Sequence[dict[str, Any]]) -> Case:
    """The hot path of the edge and of the processors."""
    encoder = call_encoder(version, action)
    prefix = meta_prefix("CS-000123", "0190f3c2-5a1e-7c44-9d0f-3f2b6a1c9e57", "edge-2", 2, version)
    start = 1_777_889_472_000

    def encode_all() -> list[bytes]:
        return [encoder(prefix, n, f"m-{n}", start + n // 16, payload) for n, payload in enumerate(payloads)]

    records = encode_all()

    def decode_all() -> None:
        for data in records:
            decode_call(data)

    name = f"ocpp.{version.label}.{action}"
    return Case(title, len(records[0]), (encode_all, decode_all), fastavro_coders(name, records))


def value_case(name: str, topic: str) -> Case:
    """A value of a `csms` topic."""
    values = [copy.deepcopy(example_value(topic, name)) for _ in range(VALUES)]

    def encode_all() -> list[bytes]:
        return [encode(name, value) for value in values]

    records = encode_all()

    def decode_all() -> None:
        for data in records:
            decode(data)

    return Case(name, len(records[0]), (encode_all, decode_all), fastavro_coders(name, records))


def fastavro_coders(name: str, records: Sequence[bytes]) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same work by fastavro; its bytes have to be ours."""
    entry = shipped_lock().latest(name)
    schema = fastavro.parse_schema(json.loads(entry.schema.replace(',"logicalType":"timestamp-millis"', "")))
    values: list[Any] = [fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None) for data in records]

    def encode_all() -> list[bytes]:
        encoded = []
        for value in values:
            out = io.BytesIO()
            fastavro.schemaless_writer(out, schema, value)
            encoded.append(out.getvalue())
        return encoded

    def decode_all() -> None:
        for data in records:
            fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)

    if encode_all() != [data[5:] for data in records]:
        raise AssertionError(f"{name}: fastavro writes other bytes")
    return encode_all, decode_all


def microseconds(work: Callable[[], object]) -> float:
    """CPU time per value, the best of the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.thread_time()
        work()
        best = min(best, time.thread_time() - begin)
    return best / VALUES * 1e6


def main() -> None:
    numbers = range(VALUES)
    events = [transaction_event(number) for number in numbers]
    cases = [
        call_case("2.0.1 TransactionEvent, 12 values", Version.V201, "TransactionEvent", events),
        call_case("1.6 MeterValues, 12 values", Version.V16, "MeterValues", [meter_values(n) for n in numbers]),
        call_case("1.6 Heartbeat", Version.V16, "Heartbeat", [{} for _ in numbers]),
        value_case("csms.OutboundMessage", "csms.outbound"),
        value_case("csms.SessionEvent", "csms.session-events"),
        value_case("csms.MeterSamples", "csms.meter-samples"),
    ]
    print(f"Python {platform.python_version()}, fastavro {fastavro.__version__}; CPU microseconds per value")
    print(f"{'':36}{'bytes':>7}{'encode':>9}{'fastavro':>10}{'ratio':>7}{'decode':>9}{'fastavro':>10}{'ratio':>7}")
    for case in cases:
        row = f"{case.title:36}{case.size:7}"
        for ours, theirs in zip(case.ours, case.theirs, strict=True):
            mine, other = microseconds(ours), microseconds(theirs)
            row += f"{mine:9.2f}{other:10.2f}{other / mine:7.1f}"
        print(row)


if __name__ == "__main__":
    main()
