"""DataTransfer: which vendors' messages are known, and what each is answered with.

The table is a TOML file, so that a vendor is added without a change of code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from busbar.config import ConfigError
from busbar.ocpp.versions import Version

DEFAULT_TABLE = Path(__file__).with_name("data_transfer.toml")

_STATUSES = frozenset({"Accepted", "Rejected"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one kind of message is answered with."""

    status: str
    """`Accepted` or `Rejected`."""
    data: Any = None
    """A JSON value; in OCPP 1.6, where `data` is a string, it travels as JSON text unless it is a string."""


@dataclass(frozen=True, slots=True)
class DataTransferTable:
    """Vendors and their messages. Ids are compared without regard to case, as OCPP's identifiers are."""

    vendors: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)
    """By case-folded vendor id, then by case-folded message id; `*` stands for any message id, or none."""

    def answer(self, version: Version, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of the answer to a DataTransfer.

        Spec: OCPP 1.6 §4.3: `UnknownVendorId` if the vendor is not known, `UnknownMessageId` if its message is not.
        OCPP 2.0.1 P02 says the same.
        """
        messages = self.vendors.get(str(payload.get("vendorId", "")).casefold())
        if messages is None:
            return {"status": "UnknownVendorId"}
        known = messages.get(str(payload.get("messageId") or "").casefold()) or messages.get("*")
        if known is None:
            return {"status": "UnknownMessageId"}
        if known.data is None:
            return {"status": known.status}
        as_text = version is Version.V16 and not isinstance(known.data, str)
        return {"status": known.status, "data": orjson.dumps(known.data).decode() if as_text else known.data}


def read_table(path: Path = DEFAULT_TABLE) -> DataTransferTable:
    """Read a table of vendors.

    Raises:
        ConfigError: If the file cannot be read or an entry makes no sense; says which.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"data transfer table {path}: {error}") from None
    vendors: dict[str, dict[str, Answer]] = {}
    for vendor_id, entry in document.get("vendors", {}).items():
        messages = entry.get("messages") if isinstance(entry, dict) else None
        if not isinstance(messages, dict) or not messages:
            raise ConfigError(f"data transfer table {path}: vendor {vendor_id!r} has no messages")
        vendors[vendor_id.casefold()] = {
            message_id.casefold(): _read_answer(path, vendor_id, message_id, message)
            for message_id, message in messages.items()
        }
    return DataTransferTable(vendors)


def _read_answer(path: Path, vendor_id: str, message_id: str, message: Any) -> Answer:
    status = message.get("status") if isinstance(message, dict) else None
    if status not in _STATUSES:
        raise ConfigError(
            f"data transfer table {path}: {vendor_id!r} {message_id!r} needs a status, Accepted or Rejected"
        )
    return Answer(status, message.get("data"))
