"""Child processes that never outlive the process that started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from busbar.local import tied

_LOG_LIMIT_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Owner:
    """The user that a process runs as, where that is not the user of its parent."""

    uid: int
    gid: int


class Process:
    """One child process with a log file of its own, tied to this process's life.

    Args:
        name: As people know it, such as `edge-0`.
        command: What to run; the first item is found on the PATH.
        log_path: Standard output and error are appended here.
        environment: All of the child's environment; this process's own unless given.
        death_signal: What the child gets when this process ends without having stopped it.
        owner: Run it as another user. Needs root.
        folder: The child's working directory.
        nice: How far it steps back for other processes when the machine is busy, 0 to 19.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        owner: Owner | None = None,
        folder: Path | None = None,
        nice: int = 0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log_path
        self.environment = environment
        self.death_signal = death_signal
        self.owner = owner
        self.folder = folder
        self.nice = nice
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child. Does nothing if it runs.

        Raises:
            RuntimeError: Called from another thread than the main one: Linux ties a child to the thread that
                started it.
        """
        if self.running:
            return
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("processes are started from the main thread: their lives are tied to it")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        _rotate(self.log_path)
        with open(self.log_path, "ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - the command is the caller's own
                self._tied_command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if self.environment is None else dict(self.environment),
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which stops children in order
            )

    def _tied_command(self) -> list[str]:
        command = [sys.executable, "-I", "-S", tied.__file__]
        command += ["--parent", str(os.getpid()), "--signal", str(int(self.death_signal))]
        if self.nice:
            command += ["--nice", str(self.nice)]
        if self.owner is not None:
            command += ["--uid", str(self.owner.uid), "--gid", str(self.owner.gid)]
        return [*command, "--", *self.command]

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self.running and self._child is not None else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the last run ended: an exit code, or minus a signal. `None` while it runs."""
        return None if self._child is None else self._child.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing if the child has ended."""
        if self.running and self._child is not None:
            self._child.send_signal(number)

    async def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end and return its code, or `None` if the time ran out."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.running:
            if deadline is not None and time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        return self.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM, grace_seconds: float = 10.0) -> int | None:
        """Ask the child to end, insist with SIGKILL after the grace, and return how it ended."""
        self.send(number)
        if await self.wait(grace_seconds) is None and self.running:
            self.send(signal.SIGKILL)
            await self.wait()
        return self.returncode

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self.stop(signal.SIGKILL)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of the log, for an error message."""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 8192))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.strip().splitlines()[-lines:])


def _rotate(path: Path) -> None:
    """Keep one older log beside the current one once that has grown large."""
    try:
        if path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        pass
