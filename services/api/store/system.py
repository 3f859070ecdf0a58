"""Queries about the system as a whole."""

from __future__ import annotations

EDGES = """
SELECT edge, edge_instance, edge_partition, event, connections, address, last_seen, instance_since, silent
FROM router.edges WHERE last_seen > now() - interval '1 day' ORDER BY edge
"""

COUNTS = """
SELECT (SELECT count(*) FROM config.stations) AS registered,
    (SELECT count(*) FROM router.connections WHERE online) AS online,
    (SELECT count(*) FROM router.commands WHERE review_at IS NOT NULL) AS pending_commands,
    (SELECT count(*) FROM sessions.transactions WHERE is_open) AS open_transactions
"""

PROGRESS = """
SELECT group_name, partition, offsets, owner IS NOT NULL AND lease_until > clock_timestamp() AS owned, updated_at
FROM stream.progress ORDER BY group_name, partition
"""

WORKERS = """
SELECT group_name, count(*) AS workers FROM stream.workers
WHERE heartbeat_at > clock_timestamp() - interval '15 seconds' GROUP BY group_name
"""
