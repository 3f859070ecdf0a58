"""What handlers share, and how they get it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import asyncpg
from fastapi import Request, Security
from fastapi.security import HTTPBearer

from busbar.tariffs import TariffBook
from services.api.auth import ApiKey, KeyRing
from services.api.config import ApiConfig
from services.api.directory import StationDirectory
from services.api.gateway import CommandGateway

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="`bsb_<key id>_<secret>`, as `python -m services.api create-key` prints it",
)


@dataclass(frozen=True, slots=True)
class Api:
    """The parts that an API process is made of."""

    config: ApiConfig
    pool: asyncpg.Pool[Any]
    keys: KeyRing
    directory: StationDirectory
    gateway: CommandGateway
    clock: Callable[[], int]
    """Unix milliseconds."""
    tariffs: TariffBook = field(default_factory=TariffBook)
    """What is configured of tariffs; ask `refresh` before it is relied upon."""


def api_of(request: Request) -> Api:
    """The process's parts."""
    api = request.app.state.api
    assert isinstance(api, Api)
    return api


def _requirement(role: str) -> Callable[..., Awaitable[ApiKey]]:
    async def require(request: Request, _: Annotated[Any, Security(_bearer)] = None) -> ApiKey:
        return await api_of(request).keys.require(request.headers.get("authorization"), role)

    return require


Viewer = Annotated[ApiKey, Security(_requirement("viewer"))]
"""The request's key, whatever its role."""
Operator = Annotated[ApiKey, Security(_requirement("operator"))]
"""The request's key, whose role is operator or admin."""
Admin = Annotated[ApiKey, Security(_requirement("admin"))]
"""The request's key, whose role is admin."""
