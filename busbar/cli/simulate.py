"""`busbar simulate`: a fleet of simulated stations."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from busbar.local.runfile import RunFile
from busbar.simulator.fleet import (
    Credentials,
    Member,
    made_up_tokens,
    make_stations,
    members,
    parse_mix,
    read_credentials,
    read_memories,
    write_memories,
)
from busbar.simulator.link import LinkSettings
from busbar.simulator.plan import Behaviour
from busbar.simulator.report import progress_line, summary, summary_lines
from busbar.simulator.shell import Clock, Fleet
from busbar.simulator.station import Backoff, Station, StationSettings
from busbar.simulator.tally import Tally

EXIT_WRONG = 1
EXIT_NEVER_CONNECTED = 3
SAVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """A simulation as the command line asks for it."""

    fleet: list[Member]
    urls: list[str]
    settings: StationSettings
    speed: float
    duration_seconds: float | None
    progress_seconds: float
    ramp_seconds: float
    state_path: Path | None
    as_json: bool


@click.command("simulate")
@click.option("--run-file", type=click.Path(path_type=Path), help="Take edges and credentials from a running stack.")
@click.option("--url", "urls", multiple=True, help="An edge, as ws://HOST:PORT/ocpp. May be repeated.")
@click.option("--fleet", "fleet_path", type=click.Path(path_type=Path), help="Stations with their passwords, as JSON.")
@click.option("--stations", default=10, show_default=True, type=click.IntRange(min=1), help="How many stations.")
@click.option("--mix", default="1.6=40,2.0.1=40,2.1=20", show_default=True, help="Shares of the OCPP versions.")
@click.option("--seed", default=1, show_default=True, help="Drivers, cars and accidents come from it.")
@click.option(
    "--speed", default=1.0, show_default=True, type=click.FloatRange(0.01, 1000), help="Of the stations' clock."
)
@click.option("--duration", type=click.FloatRange(min=0.1), help="Real seconds to run; until Ctrl-C unless given.")
@click.option("--gap", default=600.0, show_default=True, help="Mean seconds between two drivers at an outlet.")
@click.option("--sample-interval", default=60.0, show_default=True, help="Seconds between meter values.")
@click.option("--drops", default=0.0, show_default=True, help="How often a station loses its connection, per hour.")
@click.option("--tokens", help="Id tokens of the drivers, comma-separated; those of the fleet file unless given.")
@click.option("--prefix", default="SIM-", show_default=True, help="Of station ids, where no fleet file names them.")
@click.option("--password", envvar="BUSBAR_SIMULATE_PASSWORD", help="Of all stations, where no fleet file has any.")
@click.option("--state", "state_path", type=click.Path(path_type=Path), help="Keeps meter registers between runs.")
@click.option("--progress", default=5.0, show_default=True, help="Real seconds between two lines; 0: none.")
@click.option("--ramp", default=1.0, show_default=True, help="Real seconds over which the fleet connects.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    run_file: Path | None,
    urls: tuple[str, ...],
    fleet_path: Path | None,
    stations: int,
    mix: str,
    seed: int,
    speed: float,
    duration: float | None,
    gap: float,
    sample_interval: float,
    drops: float,
    tokens: str | None,
    prefix: str,
    password: str | None,
    state_path: Path | None,
    progress: float,
    ramp: float,
    as_json: bool,
) -> None:
    """Simulate a fleet: stations that boot, charge, lose their connection and obey commands.

    Drivers come and go by the seed; times given in seconds are those of the stations' clock, which --speed makes run
    faster. At the end all transactions are stopped and a summary is printed.

    The exit code is 1 if any answer of the CSMS broke the protocol, and 3 if no station could connect.

    \b
    busbar simulate --run-file .busbar/run.json --stations 50 --speed 10 --duration 60
    busbar simulate --url ws://127.0.0.1:9310/ocpp --stations 5 --mix 2.1 --password secret
    """
    if run_file is not None:
        running = RunFile.read(run_file)
        urls = urls or tuple(edge.url for edge in running.edges)
        if fleet_path is None and running.fleet_path is not None:
            fleet_path = Path(running.fleet_path)
            state_path = state_path or fleet_path.with_name("fleet-state.json")
    if not urls:
        raise click.UsageError("give --run-file of a running stack, or --url of an edge")
    credentials = read_credentials(fleet_path) if fleet_path is not None else None
    fleet = members(stations, seed=seed, mix=parse_mix(mix), credentials=credentials, prefix=prefix, password=password)
    settings = StationSettings(
        seed=seed,
        tokens=_tokens(tokens, credentials, seed),
        behaviour=Behaviour(mean_gap_seconds=gap, sample_interval_seconds=sample_interval, drops_per_hour=drops),
        # The network and the CSMS do not run faster because the stations' clock does.
        backoff=Backoff(wait_minimum_seconds=2.0 * speed, random_range_seconds=2.0 * speed, repeat_times=4),
        link=LinkSettings(response_timeout_seconds=60.0 * speed, message_interval_seconds=10.0 * speed),
    )
    run = Run(fleet, list(urls), settings, speed, duration, progress, ramp, state_path, as_json)
    sys.exit(asyncio.run(simulate(run)))


def _tokens(given: str | None, credentials: Credentials | None, seed: int) -> tuple[str, ...]:
    if given:
        return tuple(token.strip() for token in given.split(",") if token.strip())
    return (credentials.id_tokens if credentials else ()) or made_up_tokens(seed)


async def simulate(run: Run) -> int:
    """Run a fleet and print how it went. Returns the exit code."""
    tally, clock, begin = Tally(), Clock(run.speed), time.monotonic()
    memories = read_memories(run.state_path) if run.state_path is not None else None
    stations = make_stations(run.fleet, run.settings, tally, started_at=clock.started_at, memories=memories)
    fleet = Fleet(run.fleet, stations, run.urls, clock, ramp_seconds=run.ramp_seconds)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if run.duration_seconds is not None:
        loop.call_later(run.duration_seconds, stop.set)
    telling = asyncio.create_task(_tell(run, fleet, stations, tally, clock))
    try:
        await fleet.run(stop)
    finally:
        telling.cancel()
        _save(run, stations, clock)
    _print_summary(run, tally, time.monotonic() - begin)
    if tally.connects == 0:
        click.echo(
            f"no station could connect to {', '.join(run.urls)}: is an edge there, and are the passwords right?",
            err=True,
        )
        return EXIT_NEVER_CONNECTED
    return EXIT_WRONG if tally.wrong else 0


async def _tell(run: Run, fleet: Fleet, stations: list[Station], tally: Tally, clock: Clock) -> None:
    """Print a line now and then, and keep what is to be kept should the process be killed."""
    saved = time.monotonic()
    while True:
        await asyncio.sleep(run.progress_seconds or SAVE_SECONDS)
        if run.progress_seconds:
            line = progress_line(
                tally, online=fleet.online, stations=len(stations), charging=fleet.charging, speed=run.speed
            )
            click.echo(f"{time.strftime('%H:%M:%S')}  {line}", err=run.as_json)
        if time.monotonic() >= saved + SAVE_SECONDS:
            saved = time.monotonic()
            _save(run, stations, clock)


def _save(run: Run, stations: list[Station], clock: Clock) -> None:
    if run.state_path is not None:
        write_memories(run.state_path, stations, clock.now())


def _print_summary(run: Run, tally: Tally, seconds: float) -> None:
    count = len(run.fleet)
    if run.as_json:
        click.echo(json.dumps(summary(tally, stations=count, speed=run.speed, seconds=seconds)))
        return
    for line in summary_lines(tally, stations=count, speed=run.speed, seconds=seconds):
        click.echo(line)
