"""JSON lines at the entry point; plain `logging.getLogger(__name__)` everywhere else.

WARNING is what a station did wrong, ERROR what we did. Frames appear at DEBUG only, shortened, and
neither credentials nor id tokens are ever passed to a logger.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `service`, `logger`, `message`, then the extras."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger with fixed extras, such as `station_id`, to which a call may add its own."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def configure_logging(service: str, level: str = "INFO") -> None:
    """Log JSON lines of `level` and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiokafka repeats every retry, twenty a second, while a broker is away; our own lines and checks say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
