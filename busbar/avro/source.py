"""Python source under construction: a module of a few functions and the constants that they refer to.

The module is complete in itself, and typed: it is run as it is, or compiled beforehand (`busbar.compiled`), where
native numbers make most of the difference. Which of the two a process gets is decided by the text alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from busbar import compiled
from busbar.avro.schema import Array, Map, Nullable, Record, Reference, Schema, Type

MAX_INLINE_DEPTH = 8
"""Records nested deeper get a function of their own: Python limits how deep blocks may nest."""

_TYPES = """\
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_extensions import i64
"""

DECODING = f"""\
{_TYPES}
from busbar.avro.decoding import bad_boolean, bad_branch, decode_extra, not_null
from busbar.avro.primitives import INSTANTS_READ, decimal_context, decode_block, decode_decimal, decode_instant
from busbar.avro.primitives import decode_length, decode_long, decode_unscaled, load_json, unpack_double, unpack_float
from busbar.avro.sample_decoder import SampleDecoder
"""
"""What the lines of a decoder may refer to."""

ENCODING = f"""\
{_TYPES}
from collections.abc import Mapping
from busbar.avro.encoding import MISSING, closed_double, closed_long, closed_text, encode_extra, nearest_double
from busbar.avro.encoding import nearest_long, other_double, other_long, pack_present_double, refuse, refuse_fields
from busbar.avro.primitives import INSTANTS, decimal_context, dump_json, encode_decimal, encode_long, encode_octets
from busbar.avro.primitives import pack_double, pack_float
from busbar.avro.primitives import PRESENT_VARINTS as P, VARINTS as V
from busbar.avro.sample_encoder import SampleEncoder
"""
"""What the lines of an encoder may refer to."""

_recorded: dict[str, str] | None = None


class Source:
    """Lines of a module that is compiled once it is complete.

    Args:
        docstring: Says what it is.
        imports: What the lines may refer to.
        numbers: Variables of every function that are whole numbers of 64 bits.
    """

    def __init__(self, docstring: str, imports: str, numbers: Sequence[str] = ()) -> None:
        self._lines: list[str] = []
        self._constants: list[str] = []
        self._indent = 0
        self._count = 0
        self._numbers = numbers
        self._head = f'"""{docstring}"""\n\n{imports}\n'

    def line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines below a head such as `if value:`."""
        self.line(head)
        self._indent += 1
        yield
        self._indent -= 1

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """The lines of a function."""
        with self.block(head):
            for name in self._numbers:
                self.line(f"{name}: i64")
            yield

    def fresh(self, prefix: str) -> str:
        """A variable that no other line uses."""
        self._count += 1
        return f"{prefix}{self._count}"

    def constant(self, prefix: str, value: str, type_: str = "") -> str:
        """A name for the value of an expression, which is evaluated once, behind all functions."""
        name = self.fresh(prefix.upper())
        self._constants.append(f"{name}: {f'Final[{type_}]' if type_ else 'Final'} = {value}")
        return name

    @property
    def text(self) -> str:
        return "\n".join([self._head, *self._lines, "", *self._constants, ""])

    def compile(self, function: str, title: str) -> Callable[..., Any]:
        """Run the lines, unless they are there as compiled module, and return one of the functions they define."""
        text = self.text
        if _recorded is not None:
            _recorded[module_name(title, text)] = text
        module = compiled.module(lambda: module_name(title, text))
        scope = run(title, text) if module is None else vars(module)
        made: Callable[..., Any] = scope[function]
        return made


def run(title: str, text: str) -> dict[str, Any]:
    """Run the text of a module; returns what it defines."""
    scope: dict[str, Any] = {"__name__": f"<avro {title}>"}
    exec(compile(text, f"<avro {title}>", "exec"), scope)  # noqa: S102 - the lines come from our schemas
    return scope


def module_name(title: str, text: str) -> str:
    """What a compiled module of this text is called: no other text's has the same name."""
    return f"busbar_codec_{title.replace('.', '_')}_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Keep the texts of what is compiled meanwhile, by module name."""
    global _recorded
    texts: dict[str, str] = {}
    _recorded = texts
    try:
        yield texts
    finally:
        _recorded = None


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
