"""Our sources as mypyc should see them: what is compiled is to do exactly what runs as plain Python, and fast.

Lines keep their numbers, for tracebacks. Only copies are changed so, not the code that runs as plain Python.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


def with_numbers(source: str) -> str:
    """A module in which `float` in annotations is `int | float`.

    To a type checker that is the same, but mypyc makes floats of the whole numbers that come as a `float`.
    Another name for `float`, such as `services.sessions.units.Double`, stays one that is never a whole number.
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


def with_finals(source: str) -> str:
    """A module in which what is assigned once, at its top level, is `Final`.

    mypyc writes the numbers and texts of finals into the code and finds the others at once; it looks up any other name
    in the module's dictionary each time. Names of types are left alone, and what some function calls `global`.
    """
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    tree = ast.parse(source)
    assigned = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    )
    variable = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    imported = b"from typing import Final; "
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name, end_col_offset=int(end))], value=value):
                begin, final = end, b": Final"
            case ast.AnnAssign(target=ast.Name(id=name), annotation=type_, value=ast.expr() as value):
                begin, end = type_.col_offset, type_.end_col_offset or 0
                final = b"Final[" + lines[node.lineno - 1][begin:end] + b"]"
            case _:
                continue
        line = lines[node.lineno - 1]
        if assigned[name] == 1 and name not in variable and _is_object(value) and b"Final" not in line:
            lines[node.lineno - 1] = imported + line[:begin] + final + line[end:]
            imported = b""
    return b"".join(lines).decode()


def _is_object(value: ast.expr) -> bool:
    """Whether an expression is sure to be no type, and no other name for anything."""
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name not in ("NewType", "TypeVar", "ParamSpec", "namedtuple")
        case ast.Constant() | ast.Tuple() | ast.List() | ast.Dict() | ast.Set() | ast.DictComp() | ast.Call():
            return True
        case ast.UnaryOp(operand=part) | ast.BinOp(left=part) | ast.Attribute(value=ast.Call() as part):
            return _is_object(part)
        case _:
            return False


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
