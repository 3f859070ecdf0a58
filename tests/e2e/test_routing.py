"""Two edges and three sessions processes: every frame finds its own socket, and no other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from busbar.ocpp.versions import Version
from busbar.simulator.fleet import Member, make_stations
from busbar.simulator.link import LinkSettings
from busbar.simulator.plan import Behaviour
from busbar.simulator.shell import Clock, Fleet
from busbar.simulator.station import StationSettings
from busbar.simulator.tally import Tally
from tests.e2e.system import Document, System, dial, eventually

SPEED = 60.0
TOKENS = ("FLEET-A", "FLEET-B", "FLEET-C", "FLEET-D")


async def fleet_of(system: System, count: int, urls: list[str], prefix: str) -> tuple[Fleet, Tally]:
    """Registered stations of all versions, busy within seconds; a tally judges every answer that they get."""
    members = []
    for number in range(count):
        version = list(Version)[number % 3]
        name = f"{prefix}-{number}"
        members.append(Member(name, await system.register(name), version))
    behaviour = Behaviour(
        mean_gap_seconds=60,
        first_arrival_seconds=60,
        sample_interval_seconds=30,
        fault_share=0,
        unknown_card_share=0,
    )
    settings = StationSettings(
        seed=11,
        tokens=TOKENS,
        behaviour=behaviour,
        link=LinkSettings(response_timeout_seconds=60 * SPEED, message_interval_seconds=5 * SPEED),
    )
    tally, clock = Tally(), Clock(SPEED)
    stations = make_stations(members, settings, tally, started_at=clock.started_at)
    return Fleet(members, stations, urls, clock), tally


async def test_every_reply_reaches_the_socket_that_asked_on_either_edge(system: System) -> None:
    for token in TOKENS:
        await system.add_token(token, allow_concurrent=True, max_concurrent=100)
    fleet, tally = await fleet_of(system, 24, system.edges, "ROUTED")
    stop = asyncio.Event()
    running = asyncio.create_task(fleet.run(stop, drain_seconds=20))
    await eventually(lambda: tally.sessions_started >= 20, "20 sessions", 60)
    await asyncio.sleep(3)
    stop.set()
    await running
    assert tally.wrong == 0, tally.faults
    assert (tally.unanswered, tally.discarded, tally.connects) == (0, 0, 24)
    assert tally.answered == tally.calls
    on_edges = {(await system.get(f"/v1/stations/ROUTED-{n}"))["connection"]["edge"] for n in range(4)}
    assert on_edges == {"edge-0", "edge-1"}

    listed = [each for n in range(24) for each in await system.transactions(f"ROUTED-{n}")]
    ended = [each for each in listed if each["is_final"]]
    assert len(ended) == tally.sessions_ended
    told_wh = sum(float(each["energy_wh"]) for each in ended)
    # 1.6 tells whole watt-hours at begin and end, 2.x tenths.
    assert abs(told_wh - tally.energy_wh) <= len(ended)


@pytest.mark.parametrize("edge", [0, 1])
async def test_a_remote_start_reaches_a_station_on_either_edge_and_it_charges(system: System, edge: int) -> None:
    fleet, tally = await fleet_of(system, 3, [system.edges[edge]], f"REMOTE-{edge}")
    for station in fleet.stations:
        for outlet in station.outlets:
            outlet.agenda.cancel(f"{outlet.number} arrive")  # no driver comes by himself
    stop = asyncio.Event()
    running = asyncio.create_task(fleet.run(stop, drain_seconds=20))
    names = [station.station_id for station in fleet.stations]
    await eventually(lambda: all(station.link.accepted for station in fleet.stations), "all to be accepted")
    for name, version in zip(names, Version, strict=True):
        assert (await system.get(f"/v1/stations/{name}"))["connection"]["edge"] == f"edge-{edge}"
        action, payload = _remote_start(version)
        told = await system.command(name, action, payload)
        assert (told["outcome"], told["answer"]["status"]) == ("answered", "Accepted"), told
    await eventually(lambda: tally.sessions_started == 3, "three sessions")
    stop.set()
    await running
    assert tally.wrong == 0, tally.faults
    for name in names:
        (session,) = await system.transactions(name)
        assert (session["id_token"], session["is_final"]) == ("APP-1", True)


def _remote_start(version: Version) -> tuple[str, Document]:
    if version is Version.V16:
        return "RemoteStartTransaction", {"idTag": "APP-1", "connectorId": 1}
    token = {"idToken": "APP-1", "type": "Central"}
    return "RequestStartTransaction", {"idToken": token, "remoteStartId": 1, "evseId": 1}


async def drained(socket: ClientConnection, seconds: float) -> list[Any]:
    """Every frame that comes within the time."""
    frames = []
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            frames.append(json.loads(await asyncio.wait_for(socket.recv(), remaining)))
        except (TimeoutError, ConnectionClosed):
            break
    return frames


async def ask(socket: ClientConnection, message_id: str, action: str, payload: Document) -> Any:
    """Send a CALL; returns the next frame, which must be its answer."""
    await socket.send(json.dumps([2, message_id, action, payload]))
    frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
    assert frame[:2] == [3, message_id], frame
    return frame[2]


BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}
STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}


async def test_a_station_that_moves_to_the_other_edge_gets_no_reply_to_what_it_asked_before(system: System) -> None:
    password = await system.register("MOVES-1")
    (pid,) = [each.pid for each in system.run.services if each.service == "stations"]
    assert pid is not None
    old = await dial(system.edges[0], "MOVES-1", password, "ocpp1.6")
    await ask(old, "1", "BootNotification", BOOT)
    os.kill(pid, signal.SIGSTOP)
    try:
        await old.send(json.dumps([2, "2", "StatusNotification", STATUS]))
        new = await dial(system.edges[1], "MOVES-1", password, "ocpp1.6")
        # The same message ids again, as after a reboot: an answer that is not ours would go unnoticed otherwise.
        assert "currentTime" in await ask(new, "2", "Heartbeat", {})
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await drained(new, 4) == []
    assert "currentTime" in await ask(new, "3", "Heartbeat", {})
    assert await ask(new, "4", "StatusNotification", STATUS) == {}
    await new.close()
    await old.close()


async def test_a_command_on_its_way_while_the_station_moves_has_an_outcome_and_leaves_no_stale_frame(
    system: System,
) -> None:
    password = await system.register("MOVES-2")
    old = await dial(system.edges[0], "MOVES-2", password, "ocpp1.6")
    await ask(old, "1", "BootNotification", BOOT)
    command = asyncio.create_task(system.command("MOVES-2", "GetConfiguration", {}, wait=40))
    call = json.loads(await asyncio.wait_for(old.recv(), 20))
    assert (call[0], call[2]) == (2, "GetConfiguration")
    new = await dial(system.edges[1], "MOVES-2", password, "ocpp1.6")
    await ask(new, "1", "BootNotification", BOOT)
    await old.close()
    told = await command
    assert told["outcome"] in ("disconnected", "timeout"), told
    # Its id is answered on the new connection by a station that mixes things up: nothing comes of it.
    await new.send(json.dumps([3, call[1], {"configurationKey": []}]))
    assert await drained(new, 2) == []

    again = asyncio.create_task(system.command("MOVES-2", "GetConfiguration", {}, wait=30))
    second = json.loads(await asyncio.wait_for(new.recv(), 20))
    assert second[1] != call[1]
    await new.send(json.dumps([3, second[1], {"configurationKey": []}]))
    assert (await again)["outcome"] == "answered"
    await new.close()


async def test_the_older_connection_of_a_station_is_closed_once_a_newer_one_is_there(system: System) -> None:
    password = await system.register("MOVES-3")
    old = await dial(system.edges[0], "MOVES-3", password, "ocpp1.6")
    await ask(old, "1", "BootNotification", BOOT)
    new = await dial(system.edges[1], "MOVES-3", password, "ocpp1.6")
    await asyncio.wait_for(old.wait_closed(), 40)
    assert "currentTime" in await ask(new, "1", "Heartbeat", {})
    shown = await system.get("/v1/stations/MOVES-3")
    assert (shown["online"], shown["connection"]["edge"]) == (True, "edge-1")
    await new.close()


async def test_a_station_that_is_offline_is_told_apart_at_once(system: System) -> None:
    password = await system.register("MOVES-4")
    socket = await dial(system.edges[0], "MOVES-4", password, "ocpp1.6")
    await ask(socket, "1", "BootNotification", BOOT)
    await socket.close()
    await eventually(lambda: _is_offline(system, "MOVES-4"), "the station to be offline")
    begin = time.monotonic()
    told = await system.command("MOVES-4", "ClearCache", {})
    assert told["outcome"] == "offline"
    assert time.monotonic() - begin < 10


async def _is_offline(system: System, station_id: str) -> bool:
    return not (await system.get(f"/v1/stations/{station_id}"))["online"]
