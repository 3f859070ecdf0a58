"""Straight-line Python that decodes one schema, generated from it.

The data may be anything: an index past the end, a length that lies or a text that is no UTF-8 raises one of the
errors in `DECODE_ERRORS`, which callers turn into `InvalidAvro`; nothing is allocated that the data does not hold.
A string that is cut short moves the position past the end, so callers compare the last position with the length.

Data written with an older schema is read as the newest one shapes it: fields that it lacks get their defaults,
fields that are gone are dropped. The payload of a station stays as it was sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from busbar.avro.compatibility import readable_as
from busbar.avro.errors import SchemaError
from busbar.avro.samples import is_sample_record
from busbar.avro.schema import (
    EXTRA,
    NO_DEFAULT,
    Array,
    Field,
    Map,
    Nullable,
    Primitive,
    Record,
    Schema,
    Type,
)
from busbar.avro.source import DECODING, MAX_INLINE_DEPTH, Source, records_used_twice

Decoder = Callable[[bytes, int], tuple[Any, int]]
"""Reads a value from a position and returns it with the position behind it."""

DECODE_ERRORS = (IndexError, struct.error, ValueError)
"""What a decoder raises for data that is not of its schema; `InvalidAvro` is a `ValueError`, too."""


def compile_decoder(
    writer: Schema,
    reader: Schema | None = None,
    record: Record | None = None,
    *,
    packed_samples: bool = False,
    plain: bool = False,
) -> Decoder:
    """The decoder of a schema, or of one record inside it.

    Args:
        writer: The schema that the data was written with.
        reader: The schema whose shape the value gets; the writer's own unless another is given.
        record: Which record of the writer to read; its root unless another is given.
        packed_samples: Leave sampled values as `PackedSamples` where they are like some before.
        plain: Records become tuples of the reader's fields, in its order, and decimals whole numbers of their smallest
            unit, of 64 bits at most. For who reads a schema of ours record by record.

    Raises:
        SchemaError: The reader cannot follow the writer.
    """
    reader = reader or writer
    root = record or writer.root
    return _Generator(writer, reader, packed_samples, plain).generate(root, reader.records.get(root.name, root))


class _Generator:
    def __init__(self, writer: Schema, reader: Schema, packed_samples: bool, plain: bool) -> None:
        self.writer = writer
        self.reader = reader
        self.packed_samples = packed_samples
        self.plain = plain
        self.source = Source(f"The decoder of {writer.name}.", DECODING, ("c", "q", "u"))
        self.shared = records_used_twice(writer)
        self.functions: dict[str, str] = {}
        """The function of each record that has one, by the record's full name."""
        self.pending: list[tuple[str, Record, Record]] = []

    def generate(self, root: Record, reader: Record) -> Decoder:
        entry = self.function(root, reader)
        while self.pending:
            name, record, reader = self.pending.pop()
            made = "tuple[Any, ...]" if self.plain else "dict[str, Any]"
            with self.source.function(f"def {name}(data: bytes, p: i64) -> tuple[{made}, i64]:"):
                self.record(record, reader, "d", 0)
                self.source.line("return d, p")
        return self.source.compile(entry, self.writer.name)

    def function(self, record: Record, reader: Record) -> str:
        if record.name not in self.functions:
            self.functions[record.name] = self.source.fresh("decode_")
            self.pending.append((self.functions[record.name], record, reader))
        return self.functions[record.name]

    # -- records ------------------------------------------------------------------------------------------

    def record(self, record: Record, reader: Record, value: str, depth: int) -> None:
        if depth and (record.name in self.shared or depth > MAX_INLINE_DEPTH):
            self.source.line(f"{value}, p = {self.function(record, reader)}(data, p)")
        elif record.is_open:
            self.open_record(record, value, depth)
        else:
            self.closed_record(record, reader, value, depth)

    def closed_record(self, record: Record, reader: Record, value: str, depth: int) -> None:
        line = self.source.line
        wanted = {entry.name: entry for entry in reader.fields}
        if self.plain:
            targets = {name: self.source.fresh("f") for name in wanted}
            for target in targets.values():
                line(f"{target}: Any")
        else:
            targets = {name: f"{value}[{name!r}]" for name in wanted}
            line(f"{value}: dict[str, Any] = {{}}")
        for entry in record.fields:
            if entry.name not in wanted:
                self.skip(entry.type, depth)
                continue
            target, reader_type = targets[entry.name], wanted[entry.name].type
            if entry.default == "" and entry.type == reader_type == Primitive("string"):
                with self.source.block("if data[p]:"):
                    self.primitive(entry.type, target)
                with self.source.block("else:"):  # as it often is
                    self.source.line(f"{target} = ''")
                    self.source.line("p += 1")
            else:
                self.value(entry.type, reader_type, target, depth)
        written = {entry.name for entry in record.fields}
        for entry in reader.fields:
            if entry.name not in written:
                line(f"{targets[entry.name]} = {self.default(entry)!r}")
        if self.plain:
            line(f"{value}: tuple[Any, ...] = ({''.join(f'{target}, ' for target in targets.values())})")

    def default(self, entry: Field) -> Any:
        if entry.default is NO_DEFAULT:
            raise SchemaError(f"{self.reader.name}: {entry.name} is new and has no default")
        if isinstance(entry.type, Primitive) and entry.type.name == "bytes":
            return entry.default.encode("latin-1")
        return entry.default

    def open_record(self, record: Record, value: str, depth: int) -> None:
        line, block = self.source.line, self.source.block
        if self.plain:
            raise SchemaError(f"{record.name} has members of any name: it is no tuple")
        if record.fields[-1].name != EXTRA:
            raise SchemaError(f"{record.name}: {EXTRA} comes last")
        fields = record.fields[:-1]
        line(f"{value}: dict[str, Any] = {{}}")
        with block("while True:"):  # runs once: a break skips what is absent to the end
            for index, entry in enumerate(fields):
                target = f"{value}[{entry.json_name!r}]"
                if not isinstance(entry.type, Nullable):
                    self.value(entry.type, entry.type, target, depth)
                    continue
                if index == 0 or not isinstance(fields[index - 1].type, Nullable):
                    self.skip_absent(fields[index:])
                line("u = data[p]")
                line("p += 1")
                with block("if u == 2:"):
                    self.value(entry.type.of, entry.type.of, target, depth)
                    self.skip_absent(fields[index + 1 :])
                with block("elif u:"):
                    line("bad_branch(u, p)")
            with block("if data[p]:"):
                line(f"p = decode_extra(data, p, {value})")
            with block("else:"):
                line("p += 1")
            line("break")

    def skip_absent(self, fields: tuple[Field, ...]) -> None:
        """Leave the record if nothing but nulls and an empty `extra` follow, which is a row of zeros."""
        size = len(fields) + 1
        if size < 3 or not all(isinstance(entry.type, Nullable) for entry in fields):
            return
        with self.source.block(f"if not data[p] and data[p : p + {size}] == {bytes(size)!r}:"):
            self.source.line(f"p += {size}")
            self.source.line("break")

    # -- values -------------------------------------------------------------------------------------------

    def value(self, type_: Type, reader: Type, target: str, depth: int) -> None:
        """Read a value into `target`, in the shape that the reader gives it."""
        line, block = self.source.line, self.source.block
        type_, reader = self.writer.resolve(type_), self.reader.resolve(reader)
        match type_:
            case Nullable(of):
                line("u = data[p]")
                line("p += 1")
                with block("if u == 2:"):
                    self.value(of, reader.of if isinstance(reader, Nullable) else reader, target, depth)
                with block("elif u == 0:"):
                    line(f"{target} = {'None' if isinstance(reader, Nullable) else 'not_null(None)'}")
                with block("else:"):
                    line("bad_branch(u, p)")
            case _ if isinstance(reader, Nullable):
                self.value(type_, reader.of, target, depth)
            case Primitive():
                self.primitive(type_, target)
                self.promote(type_, reader, target)
            case Array(items):
                self.array(items, self.same(reader, Array).items, target, depth)
            case Map(of):
                self.map(of, self.same(reader, Map).values, target, depth)
            case Record():
                value = self.source.fresh("d")
                self.record(type_, self.same(reader, Record), value, depth + 1)
                line(f"{target} = {value}")

    def same(self, reader: Type, kind: type) -> Any:
        if not isinstance(reader, kind):
            raise SchemaError(f"{self.writer.name}: a {kind.__name__.lower()} has become another type")
        return reader

    def skip(self, type_: Type, depth: int) -> None:
        """Pass over a value that the reader has no field for; whether its bytes are text is not looked at."""
        line, block = self.source.line, self.source.block
        match self.writer.resolve(type_):
            case Nullable(of):
                line("u = data[p]")
                line("p += 1")
                with block("if u == 2:"):
                    self.skip(of, depth)
                with block("elif u:"):
                    line("bad_branch(u, p)")
            case Primitive("string" | "bytes"):
                self.octets()
                line("p = q")
            case Primitive("double" | "float" as name):
                line(f"p += {8 if name == 'double' else 4}")
            case other:
                self.value(other, other, self.source.fresh("unused"), depth)

    def promote(self, type_: Primitive, reader: Type, target: str) -> None:
        if not isinstance(reader, Primitive):
            raise SchemaError(f"{self.writer.name}: a {type_.name} has become another type")
        if reader.name == type_.name:
            return
        if not readable_as(type_.name, reader.name):
            raise SchemaError(f"{self.writer.name}: a {type_.name} has become a {reader.name}")
        if reader.name in ("float", "double"):
            self.source.line(f"{target} = float({target})")
        elif reader.name == "bytes":
            self.source.line(f"{target} = {target}.encode()")
        elif reader.name == "string":
            self.source.line(f"{target} = {target}.decode()")

    def primitive(self, type_: Primitive, target: str) -> None:
        line, block = self.source.line, self.source.block
        match type_:
            case Primitive("string", json_text=True):
                self.octets()
                line(f"{target} = load_json(data[p:q].decode())")
                line("p = q")
            case Primitive("string"):
                self.octets()
                line(f"{target} = data[p:q].decode()")
                line("p = q")
            case Primitive("bytes", logical="decimal") if self.plain:
                self.octets()
                line(f"{target} = decode_unscaled(data, p, q)")
                line("p = q")
            case Primitive("bytes", logical="decimal", precision=precision, scale=scale):
                self.octets()
                context = self.source.constant("context", f"decimal_context({precision}, strict=True)")
                line(f"{target} = decode_decimal(data[p:q], {scale}, {context})")
                line("p = q")
            case Primitive("bytes"):
                self.octets()
                line(f"{target} = data[p:q]")
                line("p = q")
            case Primitive("long", logical="timestamp-millis"):
                line("t = INSTANTS_READ.get(data[p : p + 6])")
                with block("if t is None:"):
                    line(f"{target}, p = decode_instant(data, p)")
                with block("else:"):
                    line(f"{target} = t")
                    line("p += 6")
            case Primitive("long" | "int"):
                line("c = data[p]")
                with block("if c < 128:"):
                    line(f"{target} = (c >> 1) ^ -(c & 1)")
                    line("p += 1")
                with block("else:"):
                    line(f"{target}, p = decode_long(data, p)")
            case Primitive("double" | "float" as name):
                line(f"({target},) = unpack_{name}(data, p)")
                line(f"p += {8 if name == 'double' else 4}")
            case Primitive("boolean"):
                line("c = data[p]")
                line("p += 1")
                line(f"{target} = c == 1")
                with block("if c > 1:"):
                    line("bad_boolean(c, p)")
            case Primitive("null"):
                line(f"{target} = None")

    def octets(self) -> None:
        """Set `p` and `q` to begin and end of a string or of bytes."""
        line, block = self.source.line, self.source.block
        line("c = data[p]")
        with block("if c & 129:"):  # more than one byte, or negative
            line("c, p = decode_length(data, p)")
            line("q = p + c")
        with block("else:"):
            line("p += 1")
            line("q = p + (c >> 1)")

    def array(self, items: Type, reader: Type, target: str, depth: int) -> None:
        record = self.writer.resolve(items)
        if isinstance(record, Record) and is_sample_record(record):
            is_double = record.fields[0].type == Primitive("double")
            known = f"is_double={is_double}, packed={self.packed_samples}"
            decoder = f"SampleDecoder({self.function(record, record)}, {known})"
            self.source.line(f"{target}, p = {self.source.constant('samples', decoder)}.decode(data, p)")
            return
        values, item = self.source.fresh("a"), self.source.fresh("i")
        self.source.line(f"{values}: list[Any] = []")
        self.source.line(f"{item}: Any")
        with self.source.block(self.blocks()):
            with self.source.block(f"for {self.source.fresh('_')} in range({self.count()}):"):
                self.value(items, reader, item, depth + 1)
                self.source.line(f"{values}.append({item})")
            self.source.line("c = data[p]")
        self.source.line("p += 1")
        self.source.line(f"{target} = {values}")

    def map(self, of: Type, reader: Type, target: str, depth: int) -> None:
        values, key, item = self.source.fresh("m"), self.source.fresh("k"), self.source.fresh("i")
        self.source.line(f"{values}: dict[str, Any] = {{}}")
        self.source.line(f"{item}: Any")
        with self.source.block(self.blocks()):
            with self.source.block(f"for {self.source.fresh('_')} in range({self.count()}):"):
                self.primitive(Primitive("string"), key)
                self.value(of, reader, item, depth + 1)
                self.source.line(f"{values}[{key}] = {item}")
            self.source.line("c = data[p]")
        self.source.line("p += 1")
        self.source.line(f"{target} = {values}")

    def blocks(self) -> str:
        """The head of the loop over the blocks of an array or map; a block of no items ends it."""
        self.source.line("c = data[p]")
        return "while c:"

    def count(self) -> str:
        """Read the head of a block into `c`; returns the variable with the number of its items."""
        count = self.source.fresh("c")
        self.source.line(f"{count}: i64")
        with self.source.block("if c & 129:"):
            self.source.line(f"{count}, p = decode_block(data, p)")
        with self.source.block("else:"):
            self.source.line(f"{count} = c >> 1")
            self.source.line("p += 1")
        return count
