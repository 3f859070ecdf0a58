"""What can go wrong with Avro data and schemas."""

from __future__ import annotations


class InvalidAvro(ValueError):  # noqa: N818 - it names what was met, as `InvalidRecord` does
    """Bytes that cannot be read, or a value that cannot be written, with the path of the field at fault."""


class SchemaError(ValueError):
    """An Avro schema that Busbar cannot use, or a change that readers could not follow. The message says which."""
