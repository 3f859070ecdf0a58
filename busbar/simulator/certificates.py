"""Certificates that a station has installed: only what it has to say about them."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

Hashes = dict[str, str]


class Certificates:
    """Root certificates by type. Their hashes are made from the text, not from the ASN.1 inside."""

    def __init__(self) -> None:
        self._installed: list[tuple[str, Hashes]] = []

    def install(self, kind: str, certificate: str) -> bool:
        """Keep a certificate. Returns whether it looks like one."""
        if "BEGIN CERTIFICATE" not in certificate:
            return False
        hashes = _hashes(certificate)
        if (kind, hashes) not in self._installed:
            self._installed.append((kind, hashes))
        return True

    def delete(self, hashes: dict[str, Any]) -> bool:
        """Remove the certificate with these hashes. Returns whether there was one."""
        wanted = {name: hashes.get(name) for name in ("issuerNameHash", "issuerKeyHash", "serialNumber")}
        kept = [(kind, known) for kind, known in self._installed if {name: known[name] for name in wanted} != wanted]
        deleted = len(kept) < len(self._installed)
        self._installed = kept
        return deleted

    def of(self, kinds: Collection[str] | None) -> list[tuple[str, Hashes]]:
        """The certificates of these types; of all, if none is named."""
        return [(kind, hashes) for kind, hashes in self._installed if not kinds or kind in kinds]


def _hashes(certificate: str) -> Hashes:
    digest = sha256(certificate.encode()).hexdigest()
    return {
        "hashAlgorithm": "SHA256",
        "issuerNameHash": digest,
        "issuerKeyHash": sha256(digest.encode()).hexdigest(),
        "serialNumber": digest[:16],
    }
