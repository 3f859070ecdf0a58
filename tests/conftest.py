"""Options and fixtures of all tests."""

from __future__ import annotations

from tests.support.servers import (
    _created_topics,
    _postgres_admin_url,
    _template_database,
    kafka_servers,
    postgres_url,
    topics,
)
from tests.support.servers import add_options as pytest_addoption

__all__ = [
    "_created_topics",
    "_postgres_admin_url",
    "_template_database",
    "kafka_servers",
    "postgres_url",
    "pytest_addoption",
    "topics",
]
