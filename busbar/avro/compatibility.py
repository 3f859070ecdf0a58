"""Whether data of one version of a schema can be read with another, by Avro's rules and the codec's own.

A change is allowed if it holds both ways: consumers update before or after producers, in any order.
"""

from __future__ import annotations

from busbar.avro.schema import (
    NO_DEFAULT,
    Array,
    Map,
    Nullable,
    Primitive,
    Record,
    Schema,
    Type,
)

_WIDER = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def problems(old: Schema, new: Schema) -> list[str]:
    """Why readers of either version could not read data of the other; empty if they can."""
    backward = [f"reading old data: {problem}" for problem in unreadable(old, new)]
    forward = [f"reading new data: {problem}" for problem in unreadable(new, old)]
    return backward + forward


def unreadable(writer: Schema, reader: Schema) -> list[str]:
    """Why the reader could not read the writer's data; empty if it can."""
    comparison = _Comparison(writer, reader)
    comparison.types(writer.root, reader.root, reader.name)
    return comparison.found


def readable_as(writer: str, reader: str) -> bool:
    """Whether Avro lets a reader take one primitive type for another."""
    return writer == reader or reader in _WIDER.get(writer, ())


class _Comparison:
    def __init__(self, writer: Schema, reader: Schema) -> None:
        self.writer = writer
        self.reader = reader
        self.found: list[str] = []
        self.seen: set[tuple[str, str]] = set()

    def types(self, writer: Type, reader: Type, path: str) -> None:
        writer, reader = self.writer.resolve(writer), self.reader.resolve(reader)
        match writer, reader:
            case Nullable(old), Nullable(new):
                self.types(old, new, path)
            case Nullable(), _:
                self.found.append(f"{path} may be null and the reader does not allow it")
            case _, Nullable(new):
                self.types(writer, new, path)
            case (Array(old), Array(new)) | (Map(old), Map(new)):
                self.types(old, new, f"{path}[]")
            case Record(), Record():
                self.records(writer, reader, path)
            case Primitive(), Primitive():
                self.primitives(writer, reader, path)
            case _:
                self.found.append(f"{path} is {_kind(writer)} and the reader expects {_kind(reader)}")

    def records(self, writer: Record, reader: Record, path: str) -> None:
        if (writer.name, reader.name) in self.seen:
            return
        self.seen.add((writer.name, reader.name))
        if writer.name != reader.name:
            self.found.append(f"{path} is a {writer.name} and the reader expects a {reader.name}")
        if writer.is_open != reader.is_open:
            self.found.append(f"{path} keeps unknown members in one version only")
        written = {entry.name: entry for entry in writer.fields}
        for entry in reader.fields:
            where = f"{path}.{entry.name}"
            if entry.name not in written:
                if entry.default is NO_DEFAULT:
                    self.found.append(f"{where} is missing and has no default")
                continue
            self.types(written[entry.name].type, entry.type, where)
            if written[entry.name].json_name != entry.json_name:
                self.found.append(f"{where} stands for another member")

    def primitives(self, writer: Primitive, reader: Primitive, path: str) -> None:
        if not readable_as(writer.name, reader.name):
            self.found.append(f"{path} is {writer.name} and the reader expects {reader.name}")
        elif writer.logical != reader.logical or writer.json_text != reader.json_text:
            self.found.append(f"{path} means another thing")
        elif (writer.scale, writer.precision) != (reader.scale, reader.precision):
            self.found.append(f"{path} is a decimal of other digits")


def _kind(type_: Type) -> str:
    match type_:
        case Primitive(name):
            return name
        case _:
            return type(type_).__name__.lower()
