"""The two shapes of WebSocket frames that nearly all traffic consists of. Spec: RFC 6455 §5.2.

A station's message is one masked, final text frame that arrives in one piece, and an answer is one unmasked, final text
frame. They are read and written here; everything else goes through websockets' own parser.
"""

from __future__ import annotations

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without its C extension
    from websockets.utils import apply_mask

_FINAL_TEXT = 0x81


def whole_text(data: bytes, max_size: int) -> bytes | None:
    """The payload, if the data is exactly one text message in one masked frame of at most `max_size` bytes."""
    length = len(data)
    if length < 6 or data[0] != _FINAL_TEXT:
        return None
    size, start = data[1] - 0x80, 6
    if size == 126:
        size, start = data[2] << 8 | data[3], 8
        if size < 126:
            return None  # not the shortest form: let the parser judge
    elif not 0 <= size < 126:
        return None
    if length != start + size or size > max_size:
        return None
    return apply_mask(data[start:], data[start - 4 : start])


def text_frame(text: bytes) -> bytes:
    """A text message in one unmasked frame."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)
