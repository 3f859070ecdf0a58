"""What the stations service decides by setting: intervals, and the vendors of DataTransfer."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from services.stations.data_transfer import DataTransferTable


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings that the fold reads."""

    heartbeat_interval_seconds: int = 300
    """`interval` of an accepted station for which operators have set none."""
    pending_interval_seconds: int = 60
    """After how long a pending station boots again."""
    rejected_interval_seconds: int = 600
    """After how long a rejected station boots again."""
    interval_jitter: float = 0.1
    """The share of an interval by which stations differ, so that a fleet that boots at once does not beat as one."""
    data_transfer: DataTransferTable = field(default_factory=DataTransferTable)


def jittered_seconds(seconds: int, station_id: str, share: float) -> int:
    """The interval for one station: up to `share` shorter than the setting, always the same for the same station."""
    digest = blake2b(station_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    fraction = int.from_bytes(digest, "big") / 2**64
    return max(1, seconds - int(seconds * share * fraction))
