"""The load client is believed in every figure of docs/performance.md: it has to notice wrong answers and lost time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.load import frames
from benchmarks.load.client import Clock, Fleet, Heartbeats, MakeScript, Mix16, TransactionEvents

Answer = Callable[[list[object]], list[object] | None]


@asynccontextmanager
async def server(answer: Answer, *, delay_seconds: float = 0.0) -> AsyncIterator[str]:
    """A server that answers each CALL as told, some time later; yields its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while True:
            try:
                head = await reader.readexactly(2)
                length = head[1] & 0x7F
                if length == 126:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                assert await reader.readexactly(4) == bytes(4), "a key of zero leaves the payload as it is"
                payload = await reader.readexactly(length)
            except asyncio.IncompleteReadError:
                writer.close()
                return
            if head[0] == 0x81 and (reply := answer(json.loads(payload))) is not None:
                await asyncio.sleep(delay_seconds)
                text = json.dumps(reply, separators=(",", ":")).encode()
                size = bytes((len(text),)) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
                writer.write(b"\x81" + size + text)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield f"{host}:{port}"


def result(call: list[object]) -> list[object]:
    return [3, call[1], {}]


@pytest.mark.parametrize("number", [0, 3, 9, 10])
def test_transactions_have_no_gap(number: int) -> None:
    """After one, the CSMS would ask a minute later, in the middle of another scenario."""
    script = TransactionEvents(number, Clock())
    by_transaction: dict[str, list[dict[str, Any]]] = {}
    for _ in range(30):
        frame = bytes(script.frame(b"1" * frames.ID_LENGTH))
        event = json.loads(frame[frame.index(b"[2,") :])[3]
        by_transaction.setdefault(event["transactionInfo"]["transactionId"], []).append(event)
    first, second, *_ = by_transaction.values()
    assert [event["seqNo"] for event in first] == list(range(12 - number % 10))
    assert [event["seqNo"] for event in second] == list(range(12))
    for events in (first, second):
        assert [events[0]["eventType"], events[-1]["eventType"]] == ["Started", "Ended"]
        assert {event["eventType"] for event in events[1:-1]} == {"Updated"}


@pytest.mark.parametrize("script", [Heartbeats, TransactionEvents, Mix16])
async def test_every_call_is_one_of_ocpp_and_every_answer_is_counted_once(script: MakeScript) -> None:
    seen: list[list[object]] = []

    def answer(call: list[object]) -> list[object]:
        seen.append(call)
        return [3, call[1], {"transactionId": 123456, "more": "x" * 120} if call[2] == "StartTransaction" else {}]

    async with server(answer) as address:
        fleet = await Fleet.connect([address], 3, script, "ocpp1.6")
        await fleet.closed_loop(0.3)
        unanswered = await fleet.stop_loop()
        fleet.close()
    assert unanswered == 0
    assert fleet.tally.answered == len(seen) == len({str(call[1]) for call in seen})
    assert fleet.tally.stray == fleet.tally.errors == 0
    if script is Mix16:
        stops = [call[3] for call in seen if call[2] == "StopTransaction"]
        assert stops
        assert all(isinstance(stop, dict) and stop["transactionId"] == 123456 for stop in stops)


async def test_an_answer_to_another_message_is_stray_and_ends_nothing() -> None:
    async with server(lambda call: [3, f"{call[1]}"[:-1] + "x", {}]) as address:
        fleet = await Fleet.connect([address], 2, Heartbeats, "ocpp1.6")
        await fleet.closed_loop(0.1)
        assert await fleet.stop_loop(0.1) == 2
        assert (fleet.tally.answered, fleet.tally.stray) == (0, 2)
        fleet.close()


async def test_an_error_is_an_answer_and_is_told() -> None:
    async with server(lambda call: [4, call[1], "InternalError", "", {}]) as address:
        fleet = await Fleet.connect([address], 1, Heartbeats, "ocpp1.6")
        await fleet.closed_loop(0.1)
        fleet.close()
    assert fleet.tally.errors == fleet.tally.answered > 0
    assert b"InternalError" in next(iter(fleet.tally.error_texts))


async def test_the_open_loop_counts_from_when_a_message_was_due_not_from_when_it_could_be_sent() -> None:
    # 10 messages within 0.1 s for one station, whose server takes 0.05 s each: the last is answered 0.4 s late.
    async with server(result, delay_seconds=0.05) as address:
        fleet = await Fleet.connect([address], 1, Heartbeats, "ocpp1.6")
        await fleet.open_loop(100, 0.1)
        await fleet.listen(0.6)
        fleet.close()
    latencies = list(fleet.tally.latencies)
    assert len(latencies) >= 9
    assert latencies == sorted(latencies)
    assert latencies[-1] > 0.3


async def test_stations_boot_when_they_are_connected() -> None:
    async with server(result) as address:
        fleet = await Fleet.connect([address], 5, Heartbeats, "ocpp2.0.1", at_once=2, boot=frames.BOOT_201)
        fleet.close()
    assert (fleet.tally.answered, len(fleet.stations)) == (5, 5)


def test_a_template_takes_as_many_values_as_it_has_slots() -> None:
    template = frames.template("StatusNotification", {"timestamp": frames.TIMESTAMP}, frames.TIMESTAMP)
    frame = bytes(template.fill(b"0123456789", b"2027-01-01T00:00:00.000Z"))
    assert json.loads(frame[6:]) == [
        2,
        "0123456789",
        "StatusNotification",
        {"timestamp": "2027-01-01T00:00:00.000Z"},
    ]
    with pytest.raises(ValueError, match="zip"):
        template.fill(b"0123456789")
