"""The short cut for whole frames agrees with websockets' own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Side, State
from websockets.server import ServerProtocol

from services.edge.wire import text_frame, whole_text

sizes = st.sampled_from([0, 1, 125, 126, 127, 1000, 65535, 65536])


def _parsed(data: bytes, max_size: int) -> bytes | None:
    """What websockets makes of it, if it is one whole text message and nothing more."""
    websocket = ServerProtocol(state=State.OPEN, max_size=max_size)
    websocket.receive_data(data)
    events = websocket.events_received()
    if len(events) != 1 or websocket.state is not State.OPEN or websocket.reader.buffer or websocket.current_size:
        return None
    (frame,) = events
    assert isinstance(frame, Frame)
    return bytes(frame.data) if frame.opcode is Opcode.TEXT and frame.fin else None


@given(sizes, st.booleans(), st.sampled_from(list(Opcode)))
def test_a_whole_text_frame_is_read_as_websockets_reads_it(size: int, fin: bool, opcode: Opcode) -> None:
    if opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
        size, fin = min(size, 100), True
    data = Frame(opcode, b"x" * size, fin=fin).serialize(mask=True)
    text = whole_text(data, 70_000)
    if text is not None:
        assert text == _parsed(data, 70_000)
    elif opcode is Opcode.TEXT and fin:
        assert size > 65535


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_left_to_websockets_unless_they_are_one_text_message(data: bytes, max_size: int) -> None:
    for candidate in (data, b"\x81" + data, b"\x81\xfe" + data):
        text = whole_text(candidate, max_size)
        assert text is None or text == _parsed(candidate, max_size)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_text_frame_is_written_as_websockets_writes_it(size: int) -> None:
    websocket = ServerProtocol(state=State.OPEN)
    assert websocket.side is Side.SERVER
    websocket.send_text(b"y" * size)
    assert text_frame(b"y" * size) == b"".join(websocket.data_to_send())
