"""Our sources as mypyc should see them: what is compiled is to do exactly what runs as plain Python, and fast.

Lines keep their numbers, for tracebacks. Only copies are changed so, not the code that runs as plain Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


def with_numbers(source: str) -> str:
    """A module in which `float` in annotations is `int | float`.

    To a type checker that is the same, but mypyc makes floats of the whole numbers that come as a `float`.
    """
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    names = [
        node
        for annotation in _annotations(ast.parse(source))
        for node in ast.walk(annotation)
        if isinstance(node, ast.Name) and node.id == "float"
    ]
    for node in sorted(names, key=lambda node: -node.col_offset):
        line, begin = lines[node.lineno - 1], node.col_offset
        lines[node.lineno - 1] = line[:begin] + b"int | " + line[begin:]
    return b"".join(lines).decode()


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=found) | ast.arg(annotation=ast.expr() as found):
                yield found
            case ast.FunctionDef(returns=ast.expr() as found) | ast.AsyncFunctionDef(returns=ast.expr() as found):
                yield found


def with_constructors(source: str) -> str:
    """A module whose dataclasses have an `__init__` in place of their docstring.

    mypyc leaves the constructors that `dataclass` makes to the interpreter, which sets one field after the other. Left
    alone are dataclasses that are frozen, derived from another class, or more than a list of fields with defaults.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and _is_plain(node):
            docstring, fields = node.body[0], _fields(source, node)
            if fields is None:
                continue
            indent = " " * docstring.col_offset
            lines[docstring.lineno - 1] = f"{indent}{_constructor(fields)}\n"
            for number in range(docstring.lineno, docstring.end_lineno or docstring.lineno):
                lines[number] = "\n"
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a dataclass, as source."""

    name: str
    type: str
    default: str = ""
    factory: str = ""

    @property
    def parameter(self) -> str:
        if self.factory:
            return f"{self.name}: ({self.type}) | None = None"
        return f"{self.name}: {self.type}" + (f" = {self.default}" if self.default else "")

    @property
    def assignment(self) -> str:
        if self.factory:
            return f"self.{self.name} = {self.factory}() if {self.name} is None else {self.name}"
        return f"self.{self.name} = {self.name}"


def _constructor(fields: list[_Field]) -> str:
    parameters = ", ".join(["self", *(each.parameter for each in fields)])
    return f"def __init__({parameters}) -> None: " + "; ".join(each.assignment for each in fields)


def _is_plain(node: ast.ClassDef) -> bool:
    """Whether it is a `@dataclass(slots=True)` with a docstring that makes its own `__init__`, and no more."""
    if node.bases or node.keywords or [ast.unparse(each) for each in node.decorator_list] != ["dataclass(slots=True)"]:
        return False
    methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    return ast.get_docstring(node) is not None and not methods & {"__init__", "__post_init__"}


def _fields(source: str, node: ast.ClassDef) -> list[_Field] | None:
    """The fields in their order; `None` if one of them is out of the ordinary."""
    found = list(_read_fields(source, node))
    return None if not found or None in found else [each for each in found if each is not None]


def _read_fields(source: str, node: ast.ClassDef) -> Iterator[_Field | None]:
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        name, type_ = each.target.id, ast.unparse(each.annotation)
        match each.value:
            case None:
                yield _Field(name, type_)
            case ast.Call(func=ast.Name(id="field"), args=[], keywords=keywords):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                if ("None" in type_ and "default_factory" in given) or given.keys() & {"init", "kw_only"}:
                    yield None
                yield _Field(name, type_, given.get("default", ""), given.get("default_factory", ""))
            case value:
                yield _Field(name, type_, ast.unparse(value)) if "ClassVar" not in type_ else None
