"""Where a key goes: murmur2, as in Java's default partitioner, so that Flink and Connect agree with us."""

from __future__ import annotations

import struct

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF
_CACHE_LIMIT = 65_536


def murmur2(data: bytes) -> int:
    """MurmurHash2 in 32 bits, unsigned. Source: `org.apache.kafka.common.utils.Utils.murmur2`."""
    length = len(data)
    words = length >> 2
    value = _SEED ^ length
    for word in struct.unpack_from(f"<{words}I", data):
        word = (word * _MULTIPLIER) & _MASK
        word ^= word >> 24
        value = ((value * _MULTIPLIER) & _MASK) ^ ((word * _MULTIPLIER) & _MASK)
    tail = data[words << 2 :]
    if tail:
        value ^= int.from_bytes(tail, "little")
        value = (value * _MULTIPLIER) & _MASK
    value ^= value >> 13
    value = (value * _MULTIPLIER) & _MASK
    return value ^ (value >> 15)


class Partitioner:
    """Partitions of keys, with the hashes of recent keys remembered."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, int] = {}

    def partition(self, key: bytes, partitions: int) -> int:
        """The partition of a key among so many."""
        value = self._hashes.get(key)
        if value is None:
            if len(self._hashes) >= _CACHE_LIMIT:
                self._hashes.clear()
            value = self._hashes[key] = murmur2(key) & 0x7FFFFFFF
        return value % partitions
