"""`busbar up` from the first line to the last: start, show, wait for a signal, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from rich.console import Console

import busbar
from busbar.local.figures import Collector
from busbar.local.stack import Options, Stack
from busbar.local.view import View
from busbar.logs import JsonFormatter


async def run_stack(options: Options, *, plain: bool, console: Console | None = None) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP; a second SIGINT kills what has not stopped yet.

    Raises:
        StackError: Something does not work. What had been started is stopped again.
    """
    view = View(console or Console(), plain=plain)
    view.say(f"Busbar {busbar.__version__}, data in {options.folder}")
    log_to_file(options.folder / "logs" / "up.log")
    stop = asyncio.Event()
    with view.download("the Kafka broker") as progress:
        stack = Stack(options, view.say, progress)
        signals = _Signals(stop, stack)
        try:
            started = await _until(stop, stack.start())
        except BaseException:
            await stack.stop()
            raise
    try:
        if started:
            view.places(stack.run_file(), str(options.folder))
            await _watch(stack, view, stop)
    finally:
        begin = time.monotonic()
        view.say("stopping: Ctrl-C again kills what does not stop by itself")
        await stack.stop()
        signals.remove()
        view.say(f"stopped after {time.monotonic() - begin:.1f} s; the data stays in {options.folder}")


def log_to_file(path: Path) -> None:
    """Write what libraries log to a file: the terminal is for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=1)
    handler.setFormatter(JsonFormatter("up"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # While the broker starts, its client complains about everything that is not there yet.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class _Signals:
    """Turns signals into an orderly stop."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, stop: asyncio.Event, stack: Stack) -> None:
        self._stop = stop
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._killing: asyncio.Task[None] | None = None
        for number in self._NUMBERS:
            self._loop.add_signal_handler(number, self._received, number)

    def remove(self) -> None:
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)

    def _received(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self._stop.set()
        elif number is signal.SIGINT and self._killing is None:
            self._killing = self._loop.create_task(self._stack.supervisor.kill())


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, unless `stop` is set before it is done; returns whether it was done."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return False


async def _watch(stack: Stack, view: View, stop: asyncio.Event) -> None:
    """Keep everything running and show how it does; ends with either."""
    run = stack.run_file()
    urls = {service.name: service.metrics_url for service in run.services if service.metrics_url}
    collector = Collector(urls, stack.database_url)
    tasks = [
        asyncio.create_task(stack.run(stop)),
        asyncio.create_task(view.run(collector, lambda: stack.supervisor.restarts, stop)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await collector.close()
    for result in results:
        if isinstance(result, BaseException):
            raise result
