"""Straight-line Python that encodes one schema, generated from it.

Two kinds of record differ in what they take:

- A *closed* record, as in `csms.*`, takes a mapping of exactly its fields; one that is missing gets its default.
- An *open* record stands for a JSON object that a station sent. A member that its field cannot hold (of another type,
  null, or beyond 64 bits) and a member without a field go to `extra` as JSON text, so that nothing is lost. Where a
  required number is too large for its field, the field gets the nearest value and `extra` the exact one.

A whole number in a `double` field and an integral float in a `long` field are written in the field's type; they
compare equal when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from busbar.avro.errors import SchemaError
from busbar.avro.primitives import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN
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
from busbar.avro.source import ENCODING, MAX_INLINE_DEPTH, Source, records_used_twice

Encoder = Callable[[bytearray, Any], None]
"""Appends the encoding of a value to a buffer. Raises `InvalidAvro`, or an error of Python's for a value that is
far from the schema: callers turn those into `InvalidAvro`."""


def compile_encoder(schema: Schema, record: Record | None = None) -> Encoder:
    """The encoder of a schema, or of one record inside it."""
    return _Generator(schema).generate(record or schema.root)


def encode_default(schema: Schema, entry: Field) -> bytes:
    """The encoding of a field's default. Raises `SchemaError` for defaults that Busbar has no use for."""
    value = entry.default
    match entry.type:
        case Nullable():
            return b"\x00"
        case Array() | Map() if not value:
            return b"\x00"
        case Primitive("bytes", logical=None):
            value = value.encode("latin-1")  # as Avro spells the bytes of a default
        case Primitive(name, json_text=False) if name != "bytes":
            pass
        case _:
            raise SchemaError(f"{schema.name}: {entry.name} cannot have such a default")
    probe = Schema(Record("default", (Field("v", entry.type, NO_DEFAULT, "v"),)))
    out = bytearray()
    compile_encoder(probe)(out, {"v": value})
    return bytes(out)


def _set(names: Iterable[str]) -> str:
    """The same text in every process."""
    return f"frozenset({tuple(sorted(names))!r})"


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of an open record's value, and the variables that keep the record's account."""

    value: str
    """The variable that holds it."""
    path: str
    name: str
    rest: str
    """Counts the members that are not written yet."""
    left: str
    """Names the members that `extra` has to take."""


class _Generator:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.source = Source(f"The encoder of {schema.name}.", ENCODING)
        self.shared = records_used_twice(schema)
        self.functions: dict[str, str] = {}
        """The function of each record that has one, by the record's full name."""
        self.pending: list[tuple[str, Record]] = []
        self.repeated = 0
        """How many arrays the value at hand is inside of: their items tend to repeat strings."""

    def generate(self, root: Record) -> Encoder:
        entry = self.function(root)
        while self.pending:
            name, record = self.pending.pop()
            with self.source.function(f"def {name}(out: bytearray, d: Any) -> None:"):
                self.check_object(record, "d", record.name)
                self.record(record, "d", record.name.rpartition(".")[2], 0)
        return self.source.compile(entry, self.schema.name)

    def function(self, record: Record) -> str:
        if record.name not in self.functions:
            self.functions[record.name] = self.source.fresh("encode_")
            self.pending.append((self.functions[record.name], record))
        return self.functions[record.name]

    def check_object(self, record: Record, value: str, path: str) -> None:
        kind = "dict" if record.is_open else "Mapping"
        self.check(f"isinstance({value}, {kind})", value, path, "an object")

    def check(self, condition: str, value: str, path: str, expected: str) -> None:
        with self.source.block(f"if not {condition}:"):
            self.source.line(f"refuse({path!r}, {expected!r}, {value})")

    # -- records ------------------------------------------------------------------------------------------

    def record(self, record: Record, value: str, path: str, depth: int) -> None:
        """Write a record whose value is known to be an object."""
        if depth and (record.name in self.shared or depth > MAX_INLINE_DEPTH):
            self.source.line(f"{self.function(record)}(out, {value})")
        elif record.is_open:
            self.open_record(record, value, path, depth)
        else:
            self.closed_record(record, value, path, depth)

    def closed_record(self, record: Record, value: str, path: str, depth: int) -> None:
        line, block = self.source.line, self.source.block
        needed = frozenset(entry.name for entry in record.fields if entry.default is NO_DEFAULT)
        known = self.source.constant("known", _set(entry.name for entry in record.fields), "frozenset[str]")
        refuse = f"refuse_fields({path!r}, {value}, {known}, {self.source.constant('needed', _set(needed))})"
        rest = self.source.fresh("n")
        line(f"{rest} = len({value}) - {len(needed)}")
        for has_default, group in groupby(record.fields, lambda entry: entry.default is not NO_DEFAULT):
            if has_default:
                self.fields_with_defaults(list(group), value, path, rest, depth)
                continue
            for entry in group:
                member = self.source.fresh("v")
                line(f"{member} = {value}.get({entry.name!r}, MISSING)")
                with block(f"if {member} is MISSING:"):
                    line(refuse)
                self.closed_value(entry.type, member, f"{path}.{entry.name}", depth)
        with block(f"if {rest}:"):
            line(refuse)

    def fields_with_defaults(self, fields: list[Field], value: str, path: str, rest: str, depth: int) -> None:
        """Write fields that stand together; once nothing is left of the value, the other defaults at once."""
        line, block = self.source.line, self.source.block
        defaults = [encode_default(self.schema, entry) for entry in fields]
        with block("while True:"):
            for index, entry in enumerate(fields):
                with block(f"if not {rest}:"):
                    line(f"out += {b''.join(defaults[index:])!r}")
                    line("break")
                member = self.source.fresh("v")
                line(f"{member} = {value}.get({entry.name!r}, MISSING)")
                with block(f"if {member} is MISSING:"):
                    line(f"out += {defaults[index]!r}")
                with block("else:"):
                    line(f"{rest} -= 1")
                    self.closed_value(entry.type, member, f"{path}.{entry.name}", depth)
            line("break")

    def open_record(self, record: Record, value: str, path: str, depth: int) -> None:
        line, block = self.source.line, self.source.block
        fields = record.fields[:-1]
        if record.fields[-1].name != EXTRA:
            raise SchemaError(f"{record.name}: {EXTRA} comes last")
        known = self.source.constant("known", _set(entry.json_name for entry in fields), "frozenset[str]")
        rest, left = self.source.fresh("n"), self.source.fresh("left")
        required = sum(not isinstance(entry.type, Nullable) for entry in fields)
        line(f"{rest} = len({value}) - {required}")
        line(f"{left}: tuple[str, ...] = ()")
        with block("while True:"):  # runs once: a break skips the members that are absent to the end
            for index, entry in enumerate(fields):
                if all(isinstance(later.type, Nullable) for later in fields[index:]):
                    with block(f"if not {rest}:"):
                        line(f"out += {bytes(len(record.fields) - index)!r}")
                        line("break")
                member = _Member(self.source.fresh("v"), f"{path}.{entry.json_name}", entry.json_name, rest, left)
                line(f"{member.value} = {value}.get({entry.json_name!r}, MISSING)")
                if isinstance(entry.type, Nullable):
                    self.optional(entry.type.of, member, depth)
                else:
                    self.required(entry.type, member, depth)
            with block(f"if {rest}:"):
                line(f"encode_extra(out, {value}, {known}, {left})")
            with block("else:"):
                line("out += b'\\x00'")
            line("break")

    def leave(self, member: _Member) -> None:
        self.source.line(f"{member.left} += ({member.name!r},)")

    # -- members of open records --------------------------------------------------------------------------

    def optional(self, type_: Type, member: _Member, depth: int) -> None:
        line, block, value = self.source.line, self.source.block, member.value
        written = f"{member.rest} -= 1"
        with block(f"if {value} is MISSING:"):
            line("out += b'\\x00'")
        type_ = self.schema.resolve(type_)
        match type_:
            case Primitive("string", json_text=False):
                with block(f"elif isinstance({value}, str):"):
                    line(written)
                    self.text(value, present=True)
            case Primitive("string"):
                with block("else:"):
                    line(written)
                    line("out += b'\\x02'")
                    self.json_text(value)
                return
            case Primitive("boolean"):
                for literal, encoded in (("True", b"\x02\x01"), ("False", b"\x02\x00")):
                    with block(f"elif {value} is {literal}:"):
                        line(written)
                        line(f"out += {encoded!r}")
            case Primitive("long"):
                with block(f"elif {value}.__class__ is int and 0 <= {value} < 1024:"):
                    line(written)
                    line(f"out += P[{value}]")
                self.optional_number("other_long", member)
                return
            case Primitive("double"):
                with block(f"elif {value}.__class__ is float:"):
                    line(written)
                    line(f"out += pack_present_double(2, {value})")
                self.optional_number("other_double", member)
                return
            case Array(items):
                with block(f"elif isinstance({value}, list):"):
                    line(written)
                    line("out += b'\\x02'")
                    self.array(items, value, member.path, depth, member)
            case Record():
                with block(f"elif isinstance({value}, dict):"):
                    line(written)
                    line("out += b'\\x02'")
                    self.record(type_, value, member.path, depth + 1)
            case _:
                raise SchemaError(f"{member.path}: no such type in an open record")
        with block("else:"):
            line("out += b'\\x00'")
            self.leave(member)

    def optional_number(self, other: str, member: _Member) -> None:
        line, block, value = self.source.line, self.source.block, member.value
        with block("else:"):
            line(f"{value} = {other}({value})")
            with block(f"if {value} is None:"):
                line("out += b'\\x00'")
                self.leave(member)
            with block("else:"):
                line(f"{member.rest} -= 1")
                line(f"out += b'\\x02' + {value}")

    def required(self, type_: Type, member: _Member, depth: int) -> None:
        with self.source.block(f"if {member.value} is MISSING:"):
            self.source.line(f"refuse({member.path!r}, 'there', None)")
        self.item(type_, member.value, member.path, depth, member)

    def item(self, type_: Type, value: str, path: str, depth: int, member: _Member) -> None:
        """Write a value that must be there: a required member, or an item of an array."""
        line, block = self.source.line, self.source.block
        type_ = self.schema.resolve(type_)
        match type_:
            case Primitive("string", json_text=False):
                self.check(f"isinstance({value}, str)", value, path, "a string")
                self.text(value)
            case Primitive("string"):
                self.json_text(value)
            case Primitive("boolean"):
                self.check(f"isinstance({value}, bool)", value, path, "true or false")
                line(f"out += b'\\x01' if {value} else b'\\x00'")
            case Primitive("long"):
                with block(f"if {value}.__class__ is int and 0 <= {value} < 8192:"):
                    line(f"out += V[{value}]")
                self.required_number("long", value, path, member)
            case Primitive("double"):
                with block(f"if {value}.__class__ is float:"):
                    line(f"out += pack_double({value})")
                self.required_number("double", value, path, member)
            case Array(items):
                self.check(f"isinstance({value}, list)", value, path, "an array")
                self.array(items, value, path, depth, member)
            case Record():
                self.check_object(type_, value, path)
                self.record(type_, value, path, depth + 1)
            case _:
                raise SchemaError(f"{path}: no such type in an open record")

    def required_number(self, kind: str, value: str, path: str, member: _Member) -> None:
        line, block = self.source.line, self.source.block
        exact = self.source.fresh("exact")
        with block("else:"):
            line(f"{exact} = other_{kind}({value})")
            with block(f"if {exact} is None:"):
                line(f"{exact} = nearest_{kind}({path!r}, {value})")
                line(f"{member.rest} += 1")
                self.leave(member)
            line(f"out += {exact}")

    def array(self, items: Type, value: str, path: str, depth: int, member: _Member) -> None:
        line = self.source.line
        record = self.schema.resolve(items)
        if isinstance(record, Record) and is_sample_record(record):
            is_double = record.fields[0].type == Primitive("double")
            encoder = f"SampleEncoder({self.function(record)}, is_double={is_double})"
            with self.source.block(f"if {value}:"):
                line(f"{self.source.constant('samples', encoder)}.encode(out, {value})")
            line("out += b'\\x00'")
            return
        with self.counted(value):
            item = self.source.fresh("i")
            with self.source.block(f"for {item} in {value}:"):
                self.item(items, item, f"{path}[]", depth + 1, member)
        line("out += b'\\x00'")

    # -- values of closed records -------------------------------------------------------------------------

    def closed_value(self, type_: Type, value: str, path: str, depth: int) -> None:
        line, block = self.source.line, self.source.block
        type_ = self.schema.resolve(type_)
        match type_:
            case Nullable(of):
                with block(f"if {value} is None:"):
                    line("out += b'\\x00'")
                with block("else:"):
                    line("out += b'\\x02'")
                    self.closed_value(of, value, path, depth)
            case Primitive():
                self.closed_primitive(type_, value, path)
            case Array(items):
                self.check(f"isinstance({value}, (list, tuple))", value, path, "a list")
                with self.counted(value):
                    item = self.source.fresh("i")
                    with block(f"for {item} in {value}:"):
                        self.repeated += 1
                        self.closed_value(items, item, f"{path}[]", depth + 1)
                        self.repeated -= 1
                line("out += b'\\x00'")
            case Map(of):
                self.check(f"isinstance({value}, Mapping)", value, path, "a mapping")
                with self.counted(value):
                    key, item = self.source.fresh("k"), self.source.fresh("i")
                    with block(f"for {key}, {item} in {value}.items():"):
                        self.text(key)
                        self.closed_value(of, item, f"{path}[]", depth + 1)
                line("out += b'\\x00'")
            case Record():
                self.check_object(type_, value, path)
                self.record(type_, value, path, depth + 1)

    def closed_primitive(self, type_: Primitive, value: str, path: str) -> None:
        line, block = self.source.line, self.source.block
        match type_:
            case Primitive("string", json_text=True):
                self.json_text(value)
            case Primitive("string") if self.repeated:
                known, text = self.source.constant("texts", "{}", "dict[str, bytes]"), self.source.fresh("t")
                line(f"{text} = {known}.get({value}) if {value}.__class__ is str else None")
                line(f"out += closed_text({path!r}, {value}, {known}) if {text} is None else {text}")
            case Primitive("string"):
                self.check(f"isinstance({value}, str)", value, path, "a string")
                self.text(value)
            case Primitive("long", logical="timestamp-millis"):
                instant = self.source.fresh("t")
                line(f"{instant} = INSTANTS.get({value}) if {value}.__class__ is int else None")
                encoded = f"closed_long({path!r}, {value}, {LONG_MIN}, {LONG_MAX})"
                line(f"out += {encoded} if {instant} is None else {instant}")
            case Primitive("boolean"):
                self.check(f"isinstance({value}, bool)", value, path, "a bool")
                line(f"out += b'\\x01' if {value} else b'\\x00'")
            case Primitive("long" | "int" as name):
                lowest, highest = (LONG_MIN, LONG_MAX) if name == "long" else (INT_MIN, INT_MAX)
                with block(f"if {value}.__class__ is int and 0 <= {value} < 8192:"):
                    line(f"out += V[{value}]")
                with block("else:"):
                    line(f"out += closed_long({path!r}, {value}, {lowest}, {highest})")
            case Primitive("double" | "float" as name):
                line(f"out += pack_{name}(closed_double({path!r}, {value}))")
            case Primitive("bytes", logical="decimal", precision=precision, scale=scale):
                context = self.source.constant("context", f"decimal_context({precision})")
                line(f"out += encode_octets(encode_decimal({path!r}, {value}, {scale}, {context}))")
            case Primitive("bytes"):
                self.check(f"isinstance({value}, (bytes, bytearray, memoryview))", value, path, "bytes")
                line(f"out += encode_octets(bytes({value}))")
            case Primitive("null"):
                self.check(f"{value} is None", value, path, "null")

    # -- parts --------------------------------------------------------------------------------------------

    @contextmanager
    def counted(self, value: str) -> Iterator[None]:
        """The items of an array or map as one block; an empty one has none. The end mark is not written."""
        count = self.source.fresh("c")
        with self.source.block(f"if {value}:"):
            self.source.line(f"{count} = len({value})")
            self.source.line(f"out += V[{count}] if {count} < 8192 else encode_long({count})")
            yield

    def text(self, value: str, *, present: bool = False) -> None:
        raw, size = self.source.fresh("b"), self.source.fresh("c")
        self.source.line(f"{raw} = {value}.encode()")
        self.source.line(f"{size} = len({raw})")
        if present:
            long = f"b'\\x02' + encode_long({size})"
            self.source.line(f"out += P[{size}] if {size} < 1024 else {long}")
        else:
            self.source.line(f"out += V[{size}] if {size} < 8192 else encode_long({size})")
        self.source.line(f"out += {raw}")

    def json_text(self, value: str) -> None:
        self.source.line(f"out += encode_octets(dump_json({value}))")
