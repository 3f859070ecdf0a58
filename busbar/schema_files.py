"""Where the tables and schemas lie: `schemas/` of a checkout, or the copy inside an installed package."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def schemas_folder() -> Path:
    """The folder of `topics.toml`, `actions.toml` and `avro/`."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "schemas"
    return checkout if checkout.is_dir() else package / "_schemas"
