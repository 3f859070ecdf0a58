"""Python source under construction: indented lines, fresh names, and the constants that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from busbar.avro.schema import Array, Map, Nullable, Record, Reference, Schema, Type

MAX_INLINE_DEPTH = 8
"""Records nested deeper get a function of their own: Python limits how deep blocks may nest."""


class Source:
    """Lines of a module that is compiled once it is complete.

    Args:
        names: What the lines may refer to.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = dict(names)
        self._lines: list[str] = []
        self._indent = 0
        self._count = 0

    def line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines below a head such as `if value:`."""
        self.line(head)
        self._indent += 1
        yield
        self._indent -= 1

    def fresh(self, prefix: str) -> str:
        """A variable that no other line uses."""
        self._count += 1
        return f"{prefix}{self._count}"

    def constant(self, prefix: str, value: Any) -> str:
        """A name for a value that has no short literal."""
        name = self.fresh(prefix.upper())
        self.names[name] = value
        return name

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def compile(self, function: str, title: str) -> Callable[..., Any]:
        """Run the lines and return one of the functions that they define."""
        scope = dict(self.names)
        exec(compile(self.text, f"<avro {title}>", "exec"), scope)  # noqa: S102 - the lines come from our schemas
        compiled: Callable[..., Any] = scope[function]
        return compiled


def records_used_twice(schema: Schema) -> set[str]:
    """The records that the schema refers to by name: they get functions, the others stand in line."""
    found: set[str] = set()

    def visit(type_: Type) -> None:
        match type_:
            case Reference(name):
                found.add(name)
            case Array(of) | Map(of) | Nullable(of):
                visit(of)
            case Record(_, fields):
                for entry in fields:
                    visit(entry.type)

    visit(schema.root)
    return found
