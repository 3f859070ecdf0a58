"""The proxy that the chaos tests put between two parties: it passes, cuts, and swallows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.proxy import Line


@asynccontextmanager
async def echo_through_a_line() -> AsyncIterator[Line]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    line = Line("echo", server.sockets[0].getsockname()[1])
    await line.open()
    try:
        yield line
    finally:
        await line.close()
        server.close()


async def test_it_passes_much_in_both_directions_and_the_end_as_well() -> None:
    async with echo_through_a_line() as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        sent = bytes(range(256)) * 20_000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert line.connections == 1
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_a_cut_resets_what_is_connected_and_nothing_else() -> None:
    async with echo_through_a_line() as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        line.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()


async def test_in_a_hole_nothing_passes_and_afterwards_everything() -> None:
    async with echo_through_a_line() as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        async with line.hole():
            writer.write(b"b")
            late_reader, late_writer = await asyncio.open_connection("127.0.0.1", line.port)
            late_writer.write(b"c")
            for each in (reader, late_reader):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(each.readexactly(1), 0.2)
        assert await reader.readexactly(1) == b"b"
        assert await late_reader.readexactly(1) == b"c"
        writer.close()
        late_writer.close()


async def test_where_nobody_listens_connections_are_reset() -> None:
    async with echo_through_a_line() as there:
        line = Line("nobody", 1)
        await line.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        await line.close()
        assert there.connections == 0
