"""Results as the progress row stores them: everything that is needed to produce them once more, byte for byte.

They are written with every commit and read only by whoever takes a partition over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from busbar.lz4_blocks import compress, decompress
from busbar.records import Headers, Result

_PLAIN = 1
_ENTRY = struct.Struct(">HiqIIH")
"""Index of the topic, partition, timestamp, length of the key, length of the value, number of headers."""
_HEADER = struct.Struct(">HI")
_COUNT = struct.Struct(">BHI")


def record_size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """At least as many bytes as the record takes in a batch before compression, the batch's own header included."""
    size = 90 + (len(key) if key else 0) + (len(value) if value else 0)
    for name, content in headers:
        size += 10 + 3 * len(name) + len(content)
    return size


def pack_results(results: Iterable[Result]) -> bytes:
    """Results as bytes; their partition and timestamp must be set. Nothing at all gives `b""`."""
    topics: dict[str, int] = {}
    parts: list[bytes] = []
    count = 0
    pack = _ENTRY.pack
    for result in results:
        topic, key, value, headers = result.topic, result.key, result.value, result.headers
        partition, timestamp_ms = result.partition, result.timestamp_ms
        if partition is None or timestamp_ms is None:
            raise ValueError("only results with a partition and a timestamp can be stored")
        index = topics.get(topic)
        if index is None:
            index = topics[topic] = len(topics)
        parts += (pack(index, partition, timestamp_ms, len(key), len(value), len(headers)), key, value)
        for name, content in headers:
            encoded = name.encode()
            parts.append(_HEADER.pack(len(encoded), len(content)))
            parts.append(encoded)
            parts.append(content)
        count += 1
    if not count:
        return b""
    names = [name.encode() for name in topics]
    table = b"".join(len(name).to_bytes(2, "big") + name for name in names)
    return compress(b"".join((_COUNT.pack(_PLAIN, len(names), count), table, *parts)))


def pack_by_partition(results: Sequence[tuple[int, Result]]) -> dict[int, bytes]:
    """By partition of the records that they came from, what `pack_results` makes of their results."""
    by_partition: dict[int, list[Result]] = {}
    for source, result in results:
        found = by_partition.get(source)
        if found is None:
            found = by_partition[source] = []
        found.append(result)
    return {source: pack_results(found) for source, found in by_partition.items()}


def unpack_results(data: bytes) -> list[Result]:
    """The results in `pack_results`' bytes. Raises `ValueError` for a format that this version does not know."""
    if not data:
        return []
    data = decompress(data)
    stored_format, topic_count, count = _COUNT.unpack_from(data)
    if stored_format != _PLAIN:
        raise ValueError(f"stored results have format {stored_format}, which this version does not know")
    position = _COUNT.size
    topics = []
    for _ in range(topic_count):
        length = int.from_bytes(data[position : position + 2], "big")
        topics.append(data[position + 2 : position + 2 + length].decode())
        position += 2 + length
    results = []
    for _ in range(count):
        index, partition, timestamp_ms, key_length, value_length, header_count = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        key = data[position : position + key_length]
        position += key_length
        value = data[position : position + value_length]
        position += value_length
        headers = []
        for _ in range(header_count):
            name_length, content_length = _HEADER.unpack_from(data, position)
            position += _HEADER.size
            name = data[position : position + name_length].decode()
            position += name_length
            headers.append((name, data[position : position + content_length]))
            position += content_length
        results.append(Result(topics[index], key, value, partition, tuple(headers), timestamp_ms))
    return results
