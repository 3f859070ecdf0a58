"""The edge over real sockets: handshakes, messages, and everything that a peer may do wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from busbar.ocpp.versions import Version
from busbar.passwords import hash_password
from tests.unit.services.edge.live import PASSWORD, PEPPER, LiveEdge, ask, basic, frame, hear, live_edge

STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}


@pytest.fixture
async def live() -> AsyncIterator[LiveEdge]:
    async with live_edge() as edge:
        yield edge


async def _refused(live: LiveEdge, *args: Any, **options: Any) -> tuple[int, str, Any]:
    """Status, body and headers of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await live.connect(*args, **options)
    response = caught.value.response
    return response.status_code, bytes(response.body).decode(), response.headers


# A station at work


async def test_a_station_is_heard_answered_and_announced(live: LiveEdge) -> None:
    async with live.connect() as socket:
        assert socket.subprotocol == "ocpp1.6"
        (connected,) = await live.events("csms.connections")
        assert (connected["station_id"], connected["event"], connected["ocpp_version"]) == ("CP1", "connected", "1.6")
        assert (connected["edge"], connected["edge_partition"]) == ("edge-0", 3)
        assert (connected["security_profile"], connected["remote_address"]) == (1, "127.0.0.1")
        await socket.send('[2,"m1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available"}]')
        (call,) = await live.calls("ocpp.v16.StatusNotification")
        assert call.payload == STATUS
        assert call.connection_id == connected["connection_id"]
        live.answer(call, {})
        assert await hear(socket) == [3, "m1", {}]
    events = await live.events("csms.connections", 2)
    assert (events[-1]["event"], events[-1]["close_code"]) == ("disconnected", 1000)
    assert events[-1]["connected_at"] == connected["at"]


async def test_a_heartbeat_is_answered_by_the_edge(live: LiveEdge) -> None:
    async with live.connect() as socket:
        kind, message_id, payload = await ask(socket, 2, "h", "Heartbeat", {})
        assert (kind, message_id, list(payload)) == (3, "h", ["currentTime"])
    assert len(await live.calls("ocpp.v16.Heartbeat")) == 1


@pytest.mark.parametrize("size", [0, 100, 125, 126, 60_000, 70_000])
async def test_a_reply_of_any_size_arrives_whole(live: LiveEdge, size: int) -> None:
    async with live.connect(max_size=None) as socket:
        await socket.send('[2,"m1","Authorize",{"idTag":"A"}]')
        (call,) = await live.calls("ocpp.v16.Authorize")
        live.answer(call, {"x": "y" * size})
        assert await hear(socket) == [3, "m1", {"x": "y" * size}]


async def test_a_reply_for_another_connection_reaches_nobody(live: LiveEdge) -> None:
    async with live.connect() as socket:
        await socket.send('[2,"m1","Authorize",{"idTag":"A"}]')
        (call,) = await live.calls("ocpp.v16.Authorize")
        live.send(connection_id="another", message_id="m1", payload={"stale": True})
        live.answer(call, {"fresh": True})
        assert await hear(socket) == [3, "m1", {"fresh": True}]
    assert live.metrics.outbound["result", "stale"] == 1


async def test_a_command_goes_out_and_its_answer_comes_back(live: LiveEdge) -> None:
    async with live.connect() as socket:
        (connected,) = await live.events("csms.connections")
        live.send(
            kind="call", connection_id=connected["connection_id"], message_id="c1", action="ClearCache", payload={}
        )
        assert await hear(socket) == [2, "c1", "ClearCache", {}]
        await socket.send('[3,"c1",{"status":"Accepted"}]')
        events = await live.events("csms.command-events", 2)
    assert [event["stage"] for event in events] == ["sent", "answered"]


async def test_a_command_for_a_connection_that_is_gone_is_handed_back(live: LiveEdge) -> None:
    live.send(kind="call", connection_id="gone", message_id="c1", command_id="c1", action="ClearCache", payload={})
    (event,) = await live.events("csms.command-events")
    assert (event["command_id"], event["stage"], event["connection_id"]) == ("c1", "undelivered", "gone")


async def test_an_order_to_close_closes_with_its_code(live: LiveEdge) -> None:
    async with live.connect() as socket:
        (connected,) = await live.events("csms.connections")
        live.send(kind="close", connection_id=connected["connection_id"], close_code=4001, error_description="replaced")
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert (socket.close_code, socket.close_reason) == (4001, "replaced")
    events = await live.events("csms.connections", 2)
    assert (events[-1]["close_code"], events[-1]["reason"]) == (4001, "replaced")


async def test_a_message_in_fragments_is_one_message(live: LiveEdge) -> None:
    async with live.connect() as socket:
        await socket.send(iter(['[2,"h",', '"Heart', 'beat",{}]']))
        assert (await hear(socket))[:2] == [3, "h"]


async def test_an_outbound_record_that_cannot_be_read_harms_nobody(live: LiveEdge) -> None:
    live.broker.write("csms.outbound", 3, key=b"x", value=b"garbage", timestamp_ms=0)
    live.broker.write("csms.outbound", 3, key=b"x", value=None, timestamp_ms=0)
    await live.until(lambda: live.metrics.outbound["unreadable", "dropped"] == 2)
    async with live.connect() as socket:
        assert (await ask(socket, 2, "h", "Heartbeat", {}))[0] == 3


# Subprotocols


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["ocpp1.6", "ocpp2.0.1", "ocpp2.1"], "ocpp2.1"),
        (["ocpp1.6", "ocpp2.0.1"], "ocpp2.0.1"),
        (["ocpp2.0", "ocpp1.6"], "ocpp2.0"),
        (["soap", "ocpp1.6"], "ocpp1.6"),
    ],
)
async def test_the_newest_common_version_is_chosen(live: LiveEdge, offered: list[str], chosen: str) -> None:
    async with live.connect(subprotocols=offered) as socket:
        assert socket.subprotocol == chosen
        (connected,) = await live.events("csms.connections")
        assert connected["subprotocol"] == chosen


@pytest.mark.parametrize("offered", [None, ["ocpp1.5"], ["mqtt", "soap"]])
async def test_without_a_common_subprotocol_a_station_is_refused(live: LiveEdge, offered: list[str] | None) -> None:
    status, body, _ = await _refused(live, subprotocols=offered)
    assert status == 400
    assert "ocpp2.1, ocpp2.0.1, ocpp2.0, ocpp1.6" in body


async def test_a_pinned_station_speaks_its_version_alone(live: LiveEdge) -> None:
    live.stations.add("PIN", version=Version.V16)
    async with live.connect("PIN", subprotocols=["ocpp2.0.1", "ocpp1.6"]) as socket:
        assert socket.subprotocol == "ocpp1.6"
    status, body, _ = await _refused(live, "PIN", subprotocols=["ocpp2.0.1"])
    assert status == 400
    assert "pinned to OCPP 1.6" in body


# Identities and passwords


async def test_a_percent_encoded_identity_is_decoded(live: LiveEdge) -> None:
    live.stations.add("Säule 1:A")
    async with live.connect("Säule 1:A", path="S%C3%A4ule%201%3AA?x=1"):
        (connected,) = await live.events("csms.connections")
        assert connected["station_id"] == "Säule 1:A"


@pytest.mark.parametrize(
    ("path", "status"),
    [("", 400), ("%00", 400), ("a%0Ab", 400), ("%FF", 400), ("%20a", 400), ("x" * 129, 400), ("a/b", 404)],
)
async def test_an_identity_that_cannot_be_one_is_refused(live: LiveEdge, path: str, status: int) -> None:
    assert (await _refused(live, path=path))[0] == status


async def test_a_long_identity_is_for_16_only(live: LiveEdge) -> None:
    name = "x" * 49
    live.stations.add(name)
    assert (await _refused(live, name, subprotocols=["ocpp2.0.1"]))[0] == 400
    async with live.connect(name):
        pass


async def test_an_unknown_station_is_refused_and_let_in_once_it_is_registered(live: LiveEdge) -> None:
    status, body, _ = await _refused(live, "NEW")
    assert status == 404
    assert "not registered" in body
    live.stations.add("NEW")
    async with live.connect("NEW"):
        pass


@pytest.mark.parametrize("wrong", ["", "wrong", PASSWORD + "x", b"\xff\x00", None])
async def test_a_wrong_password_is_refused(live: LiveEdge, wrong: Any) -> None:
    status, _, headers = await _refused(live, password=wrong)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer x", 401),
        ("Basic ***", 401),
        ("Basic", 401),
        (basic("CP2", PASSWORD), 401),
        (basic("CP1; DROP TABLE config.stations", PASSWORD), 401),
    ],
)
async def test_an_authorization_that_is_not_for_this_station_is_refused(
    live: LiveEdge, header: str, status: int
) -> None:
    assert (await _refused(live, headers={"Authorization": header}))[0] == status


async def test_a_refusal_is_logged_once_a_minute_and_without_the_password(
    live: LiveEdge, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await _refused(live, password="SECRET")
    (record,) = [record for record in caplog.records if record.getMessage() == "refused a handshake"]
    assert (record.__dict__["station_id"], record.__dict__["outcome"]) == ("CP1", "bad_password")
    assert "SECRET" not in str(record.__dict__)


async def test_a_new_password_holds_at_once_and_the_old_one_no_longer(live: LiveEdge) -> None:
    async with live.connect():
        pass
    live.stations.add("CP1", "a-new-password-for-it")
    async with live.connect(password="a-new-password-for-it"):
        pass
    assert (await _refused(live))[0] == 401


async def test_a_binary_password_is_compared_as_bytes_and_as_its_digits(live: LiveEdge) -> None:
    secret = bytes(range(236, 256))
    live.stations.add("BIN", secret)
    live.stations.add("HEX", secret.hex())
    async with live.connect("BIN", password=secret), live.connect("HEX", password=secret):
        pass
    assert (await _refused(live, "HEX", password=secret[::-1]))[0] == 401


async def test_a_slow_hash_is_checked_off_the_loop_and_remembered(live: LiveEdge) -> None:
    live.stations.add("SLOW", password_hash=hash_password("chosen by a person", PEPPER, generated=False))
    for _ in range(3):
        async with live.connect("SLOW", password="chosen by a person"):
            pass
    assert (await _refused(live, "SLOW", password="guessed"))[0] == 401


async def test_an_address_that_guesses_has_to_wait_and_others_go_on(live: LiveEdge) -> None:
    live.stations.add("CP2")
    for _ in range(10):
        assert (await _refused(live, "CP2", password="guess"))[0] == 401
    status, _, headers = await _refused(live, "CP2", password=PASSWORD)
    assert status == 429
    assert int(headers["Retry-After"]) >= 30
    async with live.connect():
        pass


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"enabled": False}, 403),
        ({"security_profile": 0, "password": None}, 401),
        ({"password": None}, 401),
        ({"security_profile": 2}, 401),
        ({"security_profile": 3}, 401),
    ],
)
async def test_a_station_that_may_not_connect_this_way_is_refused(
    live: LiveEdge, settings: dict[str, Any], status: int
) -> None:
    live.stations.add("X", **settings)
    assert (await _refused(live, "X"))[0] == status


async def test_unknown_and_unsecured_stations_come_in_where_that_is_switched_on() -> None:
    async with live_edge(auto_register=True, allow_unsecured=True, tls_terminated=True) as live:
        live.stations.add("OPEN", None, security_profile=0)
        live.stations.add("TLS", security_profile=2)
        async with live.connect("NEW", None), live.connect("OPEN", None), live.connect("TLS"):
            events = await live.events("csms.connections", 3)
        profiles = {event["station_id"]: event["security_profile"] for event in events}
        assert profiles == {"NEW": 0, "OPEN": 0, "TLS": 2}


async def test_stations_are_looked_up_together(live: LiveEdge) -> None:
    for number in range(50):
        live.stations.add(f"S{number}")
    live.stations.reads.clear()
    sockets = await asyncio.gather(*(live.connect(f"S{number}") for number in range(50)))
    assert len(live.stations.reads) < 25
    await asyncio.gather(*(socket.close() for socket in sockets))


async def test_without_postgres_known_stations_go_on_and_others_wait(live: LiveEdge) -> None:
    async with live.connect():
        pass
    live.stations.is_away = True
    live.edge.directory._fresh_seconds = 0.0
    async with live.connect():
        pass
    status, _, headers = await _refused(live, "CP2")
    assert status == 503
    assert 30 <= int(headers["Retry-After"]) <= 60


# HTTP that is no handshake


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /ocpp/CP1 HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (b"POST /ocpp/CP1 HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET / HTTP/1.0\r\n\r\n", b"505"),
        (b"hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", b"400"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /ocpp/CP1 HTTP/1.1\r\nX: " + b"y" * 10_000 + b"\r\n\r\n", b"431"),
        (b"GET /ocpp/CP1 HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(200)) + b"\r\n", b"431"),
        (
            b"GET /ocpp/CP1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
            b"400",
        ),
    ],
)
async def test_what_is_no_handshake_gets_a_clear_http_answer(
    live: LiveEdge, request_bytes: bytes, status: bytes
) -> None:
    answer = await live.http(request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\n\r\n" in answer
    await live.until(lambda: not live.edge.hub.all_sockets())


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_client_that_does_not_wait_for_the_handshake_is_cut_off(live: LiveEdge, is_known: bool) -> None:
    if is_known:
        async with live.connect():
            pass
    handshake = (
        f"GET /ocpp/CP1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: ocpp1.6\r\nAuthorization: {basic('CP1', PASSWORD)}\r\n\r\n"
    )
    assert b"\x8a" not in await live.http(handshake.encode() + b"\x89\x80mask")  # no pong
    await live.until(lambda: not live.edge.hub.all_sockets())
    assert live.metrics.handshakes["early_data"] == 1


async def test_a_marker_of_another_process_proves_nothing() -> None:
    async with live_edge(kafka_grace_seconds=0.3, marker_interval_seconds=60) as live:
        for _ in range(10):
            live.send(kind="marker", connection_id="another instance")
            await asyncio.sleep(0.05)
        assert live.edge.hub.path.age(live.edge.hub.clock.read().monotonic) > 0.3


async def test_a_handshake_that_never_comes_is_ended() -> None:
    async with live_edge(open_timeout_seconds=0.2) as live:
        assert (await live.http(b"GET /ocpp/CP1 HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408")
        assert live.metrics.handshakes["timeout"] == 1


# Messages that are wrong


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "",
        "[]",
        '[2,"m1","Authorize",{"idTag":NaN}]',
        '[2,"m1","Authorize",{"idTag":"\\ud800"}]',
        "[" * 5000 + "]" * 5000,
        '{"a":' * 5000,
        '[2,"m1","Authorize",{"idTag":' + "9" * 5000 + "}]",
        '[2,"m1","Authorize",{"idTag":[[[[[[]]]]]]}]',
        '[2,"m1","\'; DROP TABLE stations; --",{}]',
        '[2,"m1","<script>alert(1)</script>",{"<b>":"<script>"}]',
        '[2,"m1"]',
        "[2]",
        "\0",
    ],
)
async def test_a_wrong_message_is_recorded_and_the_connection_goes_on(live: LiveEdge, text: str) -> None:
    async with live.connect() as socket:
        await socket.send(text)
        await socket.send('[2,"h","Heartbeat",{}]')
        while (answer := await hear(socket))[0] != 3:
            assert answer[0] == 4
        assert answer[1] == "h"
    (event,) = await live.events("ocpp.malformed")
    assert event["frame_bytes"] == len(text.encode())


async def test_the_last_of_two_members_with_one_name_is_what_is_recorded(live: LiveEdge) -> None:
    async with live.connect() as socket:
        await socket.send('[2,"m1","Authorize",{"idTag":"A","idTag":"B"}]')
        (call,) = await live.calls("ocpp.v16.Authorize")
        assert call.payload == {"idTag": "B"}


async def test_sql_and_script_in_every_string_arrive_as_they_are(live: LiveEdge) -> None:
    nasty = "Robert'); DROP TABLE stations;--<script>alert(1)</script>\u202e\uffff"
    async with live.connect() as socket:
        await socket.send(
            '[2,"m1","BootNotification",{"chargePointVendor":%s,"chargePointModel":%s,"x":{"y":[%s]}}]'
            % ((f'"{nasty}"',) * 3)
        )
        (call,) = await live.calls("ocpp.v16.BootNotification")
    assert call.payload == {"chargePointVendor": nasty, "chargePointModel": nasty, "x": {"y": [nasty]}}


async def test_a_binary_message_closes_with_1003(live: LiveEdge) -> None:
    async with live.connect() as socket:
        await socket.send(b"\x00\x01")
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert socket.close_code == 1003
    (event,) = await live.events("ocpp.malformed")
    assert event["frame"] == "0001"


async def test_a_message_above_the_limit_closes_with_1009(live: LiveEdge) -> None:
    async with live.connect() as socket:
        await socket.send("[" + " " * 262_144 + "]")
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert socket.close_code == 1009
    (event,) = await live.events("ocpp.malformed")
    assert event["frame_bytes"] == 262_146


async def test_the_limit_holds_for_the_sum_of_fragments_and_per_station(live: LiveEdge) -> None:
    live.stations.add("BIG", max_frame_bytes=400_000)
    live.stations.add("SMALL", max_frame_bytes=1000)
    filler = " " * 262_144
    async with live.connect("BIG") as socket:
        await socket.send(filler + '[2,"h","Heartbeat",{}]')
        assert (await hear(socket))[0] == 3
    async with live.connect("SMALL") as socket:
        await socket.send(iter(["x" * 600, "x" * 600]))
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert socket.close_code == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xff" + struct.pack("!Q", 2**62) + b"mask" + b"x" * 100, 1009),  # a length that lies
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xc1\x85mask12345", 1002),  # a reserved bit
        (b"\x83\x80mask", 1002),  # an unknown opcode
        (b"\x80\x80mask", 1002),  # a continuation of nothing
        (b"\x89\xfe\x00\x7emask" + b"x" * 126, 1002),  # an over-long ping
        (b"\x88\x81mask\x00", 1002),  # half a close code
        (b"\x88\x84mask\x6e\x89\x8c\x94", None),  # a close with a reason that is no UTF-8
    ],
)
async def test_a_broken_websocket_frame_closes_with_the_right_code(
    live: LiveEdge, data: bytes, code: int | None
) -> None:
    async with live.connect() as socket:
        socket.transport.write(data)
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert code is None or socket.close_code == code
    await live.until(lambda: not live.edge.hub.all_sockets())


async def test_a_station_that_breaks_off_in_the_middle_leaves_nothing_behind(live: LiveEdge) -> None:
    async with live.connect() as socket:
        socket.transport.write(b"\x81\xfe\xff\xffmask" + b"x" * 1000)
        await asyncio.sleep(0.02)
        socket.transport.abort()
    events = await live.events("csms.connections", 2)
    assert (events[-1]["event"], events[-1]["close_code"]) == ("disconnected", 1006)
    assert not live.edge.hub.all_sockets()
    assert not live.edge.hub.connections


# Time


async def test_a_silent_station_is_pinged_and_given_up_when_it_does_not_answer() -> None:
    async with live_edge(ping_interval_seconds=0.2, ping_timeout_seconds=1.0) as live:
        live.stations.add("DEAF")
        async with live.connect() as healthy, live.connect("DEAF") as deaf:
            deaf.transport.pause_reading()
            await live.until(lambda: live.metrics.connections["1.6"] == 1, 10)
            assert (await ask(healthy, 2, "h", "Heartbeat", {}))[0] == 3
            deaf.transport.abort()
    last = [event for event in await live.events("csms.connections", 3) if event["station_id"] == "DEAF"][-1]
    assert last["reason"] == "no answer to a ping"


async def test_a_station_may_ask_for_no_pings() -> None:
    async with live_edge(ping_interval_seconds=0.1, ping_timeout_seconds=0.1) as live:
        live.stations.add("QUIET", ping_interval_seconds=0)
        async with live.connect("QUIET") as socket:
            socket.transport.pause_reading()
            await asyncio.sleep(1.5)
            assert live.metrics.connections["1.6"] == 1
            socket.transport.abort()


async def test_a_late_owner_is_stood_in_for() -> None:
    async with live_edge(late_seconds=0.2) as live, live.connect() as socket:
        assert await ask(socket, 2, "m1", "StatusNotification", STATUS) == [3, "m1", {}]


async def test_nothing_is_answered_late_while_kafka_has_not_got_it() -> None:
    async with live_edge(late_seconds=0.1, kafka_grace_seconds=30) as live, live.connect() as socket:
        live.broker.go_away()
        await socket.send('[2,"m1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available"}]')
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 1.5)
        live.broker.come_back()
        assert await hear(socket) == [3, "m1", {}]


# Kafka away, draining, back-pressure


async def test_kafka_away_beyond_the_grace_closes_sockets_and_refuses_until_it_is_back() -> None:
    async with live_edge(kafka_grace_seconds=0.5) as live:
        assert live.edge.hub.path.problem(asyncio.get_running_loop().time()) is None
        async with live.connect() as socket:
            live.broker.go_away()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == 1013
        status, body, headers = await _refused(live)
        assert status == 503
        assert "event log" in body
        assert int(headers["Retry-After"]) >= 30
        live.broker.come_back()
        await live.until(lambda: not live.edge.hub.path.is_down)
        async with live.connect() as socket:
            assert (await ask(socket, 2, "h", "Heartbeat", {}))[0] == 3


async def test_draining_refuses_newcomers_closes_the_others_and_says_so() -> None:
    async with live_edge() as live:
        async with live.connect() as socket:
            live.stop.set()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == 1012
        assert live.health.draining
        assert live.done is not None
        await asyncio.wait_for(live.done, 5)
        assert (await _refused(live))[0] == 503
        events = [event["event"] for event in await live.events("csms.edges")]
        assert events[0] == "started"
        assert events[-2:] == ["draining", "stopped"]
        assert "alive" in events
        assert [e["event"] for e in await live.events("csms.connections", 2)] == ["connected", "disconnected"]


async def test_a_slow_kafka_stops_the_reading_from_sockets_and_loses_nothing() -> None:
    async with live_edge(kafka_grace_seconds=30) as live, live.connect() as socket:
        live.edge.hub.max_unacknowledged_bytes = 20_000
        live.broker.go_away()
        for number in range(1000):
            await socket.send(frame(2, str(number), "Heartbeat", {}))
        await live.until(lambda: live.metrics.paused_sockets == 1)
        received = live.metrics.frames_received
        assert received <= 1000  # on a busy machine one read brings them all: what is sent from here on tells
        for number in range(1000, 2000):
            await socket.send(frame(2, str(number), "Heartbeat", {}))
        await asyncio.sleep(0.1)
        assert live.metrics.frames_received == received
        live.broker.come_back()
        answers = [(await hear(socket))[1] for _ in range(2000)]
        assert answers == [str(number) for number in range(2000)]
    assert len(await live.calls("ocpp.v16.Heartbeat", 2000)) == 2000


async def test_busy_sockets_wait_while_the_loop_is_starved(live: LiveEdge) -> None:
    async with live.connect() as socket:
        live.edge.hub.tick = lambda: None  # type: ignore[method-assign]
        live.edge.hub.patience_until = 0.0
        assert (await ask(socket, 2, "few", "Heartbeat", {}))[1] == "few"
        live.metrics.frames_received = 10_000
        for number in range(3):
            await socket.send(frame(2, str(number), "Heartbeat", {}))
            await asyncio.sleep(0.02)
        assert (await hear(socket))[1] == "0"
        assert live.metrics.frames_received == 10_001
        del live.edge.hub.tick
        assert [(await hear(socket))[1] for _ in range(2)] == ["1", "2"]


async def test_a_station_that_does_not_read_is_given_up() -> None:
    async with live_edge(write_timeout_seconds=0.5) as live, live.connect() as socket:
        socket.transport.pause_reading()
        await _flood(socket, live)
    last = (await live.events("csms.connections", 2))[-1]
    assert "does not read" in last["reason"]


async def _flood(socket: Any, live: LiveEdge) -> None:
    text = b'[2,"' + b"x" * 30 + b'","Heartbeat",{}]'
    data = (bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text) * 500
    async with asyncio.timeout(20):
        while live.metrics.connections["1.6"]:
            if socket.transport.get_write_buffer_size() < 1_000_000 and not socket.transport.is_closing():
                socket.transport.write(data)
            await asyncio.sleep(0.001)


async def test_readiness_tells_the_truth() -> None:
    async with live_edge(kafka_grace_seconds=0.3) as live:
        now = live.edge.hub.clock.read
        assert live.edge.hub.path.problem(now().monotonic) is None
        live.broker.go_away()
        await live.until(lambda: live.edge.hub.path.is_down)
        assert "no marker record" in (live.edge.hub.path.problem(now().monotonic) or "")
        live.broker.come_back()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 150), max_size=6))
async def test_messages_cut_into_any_pieces_arrive_whole_and_in_order(cuts: list[int]) -> None:
    texts = [frame(2, str(number), "Heartbeat", {"x": "y" * (number * 20)}).encode() for number in range(4)]
    data = b"".join(Frame(Opcode.TEXT, text).serialize(mask=True) for text in texts)
    data += Frame(Opcode.TEXT, texts[0][:9], fin=False).serialize(mask=True)
    data += Frame(Opcode.PING, b"").serialize(mask=True)
    data += Frame(Opcode.CONT, texts[0][9:]).serialize(mask=True)
    async with live_edge() as live, live.connect() as socket:
        start = 0
        for end in sorted({*cuts, len(data)}):
            socket.transport.write(data[start:end])
            await asyncio.sleep(0.003)
            start = end
        assert [(await hear(socket))[1] for _ in range(5)] == ["0", "1", "2", "3", "0"]
        assert (await ask(socket, 2, "whole", "Heartbeat", {}))[1] == "whole"
