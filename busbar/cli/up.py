"""`busbar up`: the whole system on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

COUNT = click.IntRange(1, 16)


@click.command("up")
@click.option("--edges", default=1, show_default=True, type=COUNT, help="Edge processes, where stations connect.")
@click.option("--sessions", default=1, show_default=True, type=COUNT, help="Processes of the sessions service.")
@click.option("--stations-workers", default=1, show_default=True, type=COUNT, help="Processes of the stations service.")
@click.option("--billing", default=1, show_default=True, type=COUNT, help="Processes of the billing service.")
@click.option("--routers", default=1, show_default=True, type=COUNT, help="Processes of the router.")
@click.option(
    "--kafka-nodes",
    default="1",
    show_default=True,
    type=click.Choice(["1", "3"]),
    help="Nodes of the Kafka cluster; with 3 each record is on all of them, and one may die.",
)
@click.option(
    "--fleet", default=50, show_default=True, type=click.IntRange(0, 5000), help="Simulated stations that charge."
)
@click.option("--no-fleet", is_flag=True, help="Simulate no stations.")
@click.option("--auto-register", is_flag=True, help="Let stations connect that nobody has registered.")
@click.option("--seed", default=1, show_default=True, type=int, help="What the fleet's drivers do depends on it.")
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1, 100),
    help="How fast the fleet's clock runs: with 20 a night's charging takes half an hour.",
)
@click.option(
    "--data",
    default=Path(".busbar"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of data, logs and secrets.",
)
@click.option("--plain", is_flag=True, help="Write lines instead of a live panel.")
def command(
    *,
    edges: int,
    sessions: int,
    stations_workers: int,
    billing: int,
    routers: int,
    kafka_nodes: str,
    fleet: int,
    no_fleet: bool,
    auto_register: bool,
    seed: int,
    speed: float,
    data: Path,
    plain: bool,
) -> None:
    """Run Kafka, PostgreSQL, every service and a charging fleet here.

    Ctrl-C or SIGTERM stops everything in order; the data stays for the next start. KAFKA_BOOTSTRAP_SERVERS and
    DATABASE_URL point to servers that run already.
    """
    from busbar.local.stack import Options
    from busbar.local.up import run_stack

    options = Options(
        folder=data,
        processes={
            "edge": edges,
            "sessions": sessions,
            "stations": stations_workers,
            "billing": billing,
            "router": routers,
        },
        fleet=0 if no_fleet else fleet,
        seed=seed,
        speed=speed,
        auto_register=auto_register,
        kafka_nodes=int(kafka_nodes),
        kafka_bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
        database_url=os.environ.get("DATABASE_URL") or None,
        partitions=os.environ.get("BUSBAR_PARTITIONS") or "local",
    )
    asyncio.run(run_stack(options, plain=plain))
