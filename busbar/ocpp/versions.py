"""The OCPP versions that Busbar speaks, and their names on the wire, on topics and in the schemas."""

from __future__ import annotations

from enum import StrEnum


class Version(StrEnum):
    """An OCPP version. Its value is the number as the specification writes it."""

    V16 = "1.6"
    V201 = "2.0.1"
    V21 = "2.1"

    is_v2: bool
    """Whether this is of the 2.x family (EVSEs, TransactionEvent, 2.x error spellings)."""

    def __init__(self, number: str) -> None:
        self.is_v2 = number != "1.6"  # a plain attribute: it is asked for several times an event

    @property
    def label(self) -> str:
        """The part of a topic name: `v16`, `v201` or `v21`."""
        return _LABELS[self]

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol. Spec: OCPP-J 1.6 §3.1.2, OCPP 2.0.1 Part 4 §3.1.2."""
        return f"ocpp{self.value}"

    @classmethod
    def from_label(cls, label: str) -> Version:
        """The version of a topic part such as `v201`. Raises `KeyError` for anything else."""
        return _BY_LABEL[label]


_LABELS = {Version.V16: "v16", Version.V201: "v201", Version.V21: "v21"}
_BY_LABEL = {label: version for version, label in _LABELS.items()}

SUBPROTOCOLS: dict[str, Version] = {
    "ocpp2.1": Version.V21,
    "ocpp2.0.1": Version.V201,
    # OCPP 2.0 was superseded by 2.0.1; stations that still say so send 2.0.1 payloads.
    "ocpp2.0": Version.V201,
    "ocpp1.6": Version.V16,
}
"""Accepted subprotocols, in the server's order of preference."""
