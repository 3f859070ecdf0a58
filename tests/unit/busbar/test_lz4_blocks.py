"""What is stored compressed comes back, and so does what was stored before anything was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from busbar.lz4_blocks import compress, decompress


@given(st.one_of(st.binary(max_size=40), st.builds(bytes.__mul__, st.binary(max_size=40), st.integers(0, 100))))
def test_it_comes_back(content: bytes) -> None:
    plain = b"\x00" + content
    assert decompress(compress(plain)) == plain
    assert decompress(plain) == plain


def test_what_repeats_takes_little_room_and_what_is_small_is_left_as_it_is() -> None:
    assert len(compress(b"\x00" + bytes(range(100)) * 20)) < 200
    assert compress(b"\x00" * 500) == b"\x00" * 500


def test_nothing_stays_nothing() -> None:
    assert compress(b"") == decompress(b"") == b""
