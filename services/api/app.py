"""The HTTP API's process: its parts, its routes and its life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp

import busbar
from busbar.config import ConfigError, Env
from busbar.postgres import connect_pool, missing_migrations
from busbar.service import Health
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.tariffs import TariffBook
from services.api import handlers, openapi
from services.api.auth import KeyRing
from services.api.clock import wall_clock_ms
from services.api.command_route import CommandRoute
from services.api.config import ApiConfig
from services.api.context import Api, api_of
from services.api.directory import StationDirectory
from services.api.gateway import COMMANDS, EVENTS, TARIFF_CHANGES, CommandGateway
from services.api.lag import LogEnds
from services.api.middleware import RequestGate
from services.api.query import declared_query
from services.api.reading import JsonResponse
from services.api.routes import (
    cdrs,
    charges,
    commands,
    registry,
    sites,
    stations,
    system,
    tariff_assignments,
    tariffs,
    tokens,
    transactions,
)

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 10
_PAUSE_SECONDS = 1.0
_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def create_app(api: Api, health: Health, log_ends: LogEnds | None = None) -> ASGIApp:
    """The application, on parts that are ready: limits and metrics, the hot path, and the framework behind it."""
    app = _framework(api, health, log_ends)
    return RequestGate(CommandRoute(app, api), max_body_bytes=api.config.max_body_bytes)


def _framework(api: Api, health: Health, log_ends: LogEnds | None) -> FastAPI:
    app = FastAPI(
        title="Busbar",
        version=busbar.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=JsonResponse,
    )
    app.state.api = api
    app.state.health = health
    app.state.system = system.SystemView(log_ends)
    app.state.exports = cdrs.ExportSlots()
    handlers.install(app)
    for module in (
        commands,
        stations,
        transactions,
        charges,
        cdrs,
        tokens,
        tariffs,
        tariff_assignments,
        sites,
        system,
    ):
        app.include_router(module.router, dependencies=[Depends(declared_query)])
    # What probes and Kafka tools append to their requests is theirs to decide.
    app.include_router(system.probes)
    app.include_router(registry.router)
    _add_documents(app)
    return app


def _add_documents(app: FastAPI) -> None:
    page = (Path(__file__).parent / "docs.html").read_text("utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_document(request: Request) -> Response:
        api = api_of(request)
        if not api.config.open_docs:
            await api.keys.require(request.headers.get("authorization"), "viewer")
        return JsonResponse(openapi.describe(app))

    # The page itself says nothing of the system: it asks for a key and shows /openapi.json.
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _CONTENT_POLICY})


@asynccontextmanager
async def opened_pool(config: ApiConfig) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A pool on a database that has every table of this version. Waits for the database as long as it takes.

    Raises:
        ConfigError: Tables are missing.
    """
    pool = await _connected(config)
    try:
        async with pool.acquire() as connection:
            missing = await missing_migrations(cast("asyncpg.Connection[asyncpg.Record]", connection))
        if missing:
            raise ConfigError(f"the database lacks {', '.join(missing)}: run the migrations first")
        yield pool
    finally:
        pool.terminate()


_AWAY = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InternalClientError)
"""How a server shows at the start that it is not there yet, or stops just now."""


async def _connected(config: ApiConfig) -> asyncpg.Pool[Any]:
    while True:
        try:
            return await connect_pool(config.database_url, service="api", max_size=config.database_connections)
        except _AWAY as error:
            logger.warning("PostgreSQL cannot be reached: trying again", extra={"error": repr(error)})
            await asyncio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def opened_gateway(config: ApiConfig, pool: asyncpg.Pool[Any]) -> AsyncIterator[CommandGateway]:
    """A gateway that reads command events from now on. Waits for Kafka as long as it takes."""
    producer = KafkaProducer(config.bootstrap_servers, flush_interval_seconds=0, client_id="busbar-api")
    await producer.start([COMMANDS, EVENTS, TARIFF_CHANGES, "csms.outbound"])
    try:
        async with KafkaConsumer(config.bootstrap_servers, client_id="busbar-api") as consumer:
            gateway = CommandGateway(producer, consumer, pool, max_waiting=config.max_waiting)
            await gateway.start()
            yield gateway
    finally:
        await producer.stop()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one set already."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def main(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Serve until told to stop, which may be while Kafka or the database is still waited for."""
    config = ApiConfig.from_env(env)
    running = asyncio.create_task(_run(config, health, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set() and not health.ready:
        running.cancel()
    await asyncio.wait((running,))
    stopping.cancel()
    if not running.cancelled():
        running.result()


async def _run(config: ApiConfig, health: Health, stop: asyncio.Event) -> None:
    async with opened_pool(config) as pool, opened_gateway(config, pool) as gateway:
        keys = KeyRing(pool)
        await keys.refresh()
        directory = StationDirectory(pool, config.station_cache_seconds)
        api = Api(config, pool, keys, directory, gateway, wall_clock_ms, TariffBook(config.time_zone))
        log_ends = LogEnds(config.bootstrap_servers)
        server = _server(config, create_app(api, health, log_ends))
        health.ready["kafka"] = gateway.problem
        health.ready["database"] = keys.problem
        health.ready["http"] = lambda: None if server.started else "the HTTP server does not listen yet"
        try:
            await _serve(server, gateway, keys, health, stop)
        finally:
            await log_ends.close()


async def _serve(server: _Server, gateway: CommandGateway, keys: KeyRing, health: Health, stop: asyncio.Event) -> None:
    serving = asyncio.create_task(server.serve())
    parts: list[asyncio.Task[Any]] = [serving, asyncio.create_task(gateway.run()), asyncio.create_task(keys.run())]
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await _drain(health, gateway, server, serving)
        for part in parts:
            if part.done():
                await part
        if not stop.is_set():
            raise RuntimeError("the HTTP server has ended")
    finally:
        for task in (*parts, stopping):
            task.cancel()
        await asyncio.gather(*parts, stopping, return_exceptions=True)


async def _drain(health: Health, gateway: CommandGateway, server: _Server, serving: asyncio.Task[None]) -> None:
    """Take no new requests, and let those that wait for stations go with `pending`."""
    health.draining = True
    server.should_exit = True
    gateway.dismiss_all()
    await asyncio.wait((serving,), timeout=_GRACE_SECONDS + 2)


def _server(config: ApiConfig, app: ASGIApp) -> _Server:
    host, port = config.listen
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # paths hold id tokens
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    logger.info("serving", extra={"url": f"http://{host}:{port}"})
    return _Server(settings)
