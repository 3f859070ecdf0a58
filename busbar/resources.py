"""Where the files are that Busbar ships beside its code."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def schemas_folder() -> Path:
    """The folder with `topics.toml`, `actions.toml` and the Avro schemas: in a checkout or in an installed wheel."""
    checkout = _PACKAGE.parent / "schemas"
    return checkout if (checkout / "topics.toml").is_file() else _PACKAGE / "_schemas"
