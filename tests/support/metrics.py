"""Counters and histograms, before and after."""

from __future__ import annotations

from prometheus_client import REGISTRY

Figures = dict[tuple[str, str], float]


def figures(prefix: str) -> Figures:
    """Counts by metric and first label, as a scrape finds them, without the prefix of their names."""
    return {
        (sample.name.removeprefix(prefix), next(iter(sample.labels.values()), "")): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith(prefix) and sample.name.endswith(("_total", "_count"))
    }


def since(before: Figures, prefix: str) -> Figures:
    """What has grown since, by how much."""
    return {key: value - before.get(key, 0) for key, value in figures(prefix).items() if value != before.get(key, 0)}
