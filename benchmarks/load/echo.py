"""What the load client itself costs: it drives a server that answers at once, and its own CPU is counted.

    python -m benchmarks.load.echo [--stations N] [--seconds S]

The server is a child process that knows just enough of WebSocket and OCPP-J to answer each CALL with `{}`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.synchronize import Event
from typing import cast

import click
import uvloop

from benchmarks.load.client import Fleet, Heartbeats, MakeScript, TransactionEvents
from benchmarks.load.frames import ID_LENGTH
from busbar.local.ports import free_port

_ID_AT = len(b'[2,"')
_REPLY_HEAD = bytes((0x81, len(b'[3,"') + ID_LENGTH + len(b'",{}]'))) + b'[3,"'


class _Echo(asyncio.Protocol):
    """Takes every frame for a CALL of the load client, unmasked in effect as its frames are."""

    def __init__(self) -> None:
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._open:
            if data.endswith(b"\r\n\r\n"):
                self._open, data = True, b""
                self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            self._buffer = data
            return
        while len(data) > 8:
            length, start = data[1] & 0x7F, 6
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 8
            if len(data) < start + length:
                break
            if data[0] == 0x81:
                at = start + _ID_AT
                self._transport.write(_REPLY_HEAD + data[at : at + ID_LENGTH] + b'",{}]')
            data = data[start + length :]
        self._buffer = data


def _serve(port: int, ready: Event) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", port, backlog=4096)
        ready.set()
        await server.serve_forever()

    uvloop.run(serve())


async def _measure(port: int, stations: int, seconds: float) -> None:
    scripts: list[tuple[str, MakeScript]] = [("heartbeats", Heartbeats), ("TransactionEvents", TransactionEvents)]
    for name, script in scripts:
        fleet = await Fleet.connect([f"127.0.0.1:{port}"], stations, script, "ocpp2.0.1")
        for rate in (None, 1000.0):
            spent = time.process_time()
            elapsed = await (fleet.closed_loop(seconds) if rate is None else fleet.open_loop(rate, seconds))
            spent = time.process_time() - spent
            tally = fleet.tally
            ordered = sorted(tally.latencies)
            print(
                f"{name}, {'open' if rate else 'closed'} loop: {tally.answered / elapsed:,.0f}/s,"
                f" {spent / tally.answered * 1e6:.1f} us of the client a message,"
                f" p50 {ordered[len(ordered) // 2] * 1000:.1f} ms, {tally.stray} stray frames, {tally.errors} errors"
            )
            await fleet.stop_loop()
        fleet.close()


@click.command()
@click.option("--stations", default=1000, show_default=True)
@click.option("--seconds", default=4.0, show_default=True)
def main(stations: int, seconds: float) -> None:
    """Measure the load client."""
    context = multiprocessing.get_context("spawn")
    ready, port = context.Event(), free_port()
    server = context.Process(target=_serve, args=(port, ready), daemon=True)
    server.start()
    try:
        ready.wait(20)
        uvloop.run(_measure(port, stations, seconds))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
