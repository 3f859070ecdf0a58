"""What may be asked for in the query of a path: what its handler reads, each once, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.models import Dependant

from services.api.context import Viewer
from services.api.problems import MAX_ERRORS, Problem

_SHOWN = 50


async def declared_query(request: Request, _: Viewer) -> None:
    """A dependency of whole routers: refuse what the handler and its own dependencies do not read.

    It needs a key before it says anything. A parameter that was overlooked would widen what is asked for, from the
    records of a station to all that there are.
    """
    if request.scope["query_string"]:
        given = [name for name, _ in request.query_params.multi_items()]
        check_query(given, set(_declared(request.scope["route"].dependant)))


def _declared(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _declared(dependency)


def check_query(given: Sequence[str], known: Collection[str]) -> None:
    """Compare the names in a query with those that there are.

    Args:
        given: As often as each is there: none of ours takes several values.

    Raises:
        Problem: 400 for names that are not known, else for those that come twice.
    """
    names = dict.fromkeys(given)
    unknown = [name for name in names if name not in known]
    if unknown:
        errors = [_error(name, _guess(name, known)) for name in unknown[:MAX_ERRORS]]
        takes = ", ".join(sorted(known)) or "nothing"
        title = "The query has a parameter that is not known here"
        raise Problem(400, "unknown-parameter", title, f"The query of this path takes {takes}.", errors=errors)
    if len(names) < len(given):
        errors = [_error(name, "is given more than once") for name in names if given.count(name) > 1]
        raise Problem(400, "repeated-parameter", "The query has a parameter twice", errors=errors)


def _guess(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name[:_SHOWN].lower(), known, n=1)
    return f"is not known here: did you mean {near[0]}?" if near else "is not known here"


def _error(name: str, message: str) -> dict[str, str]:
    return {"path": f"query.{name[:_SHOWN]}", "message": message}
