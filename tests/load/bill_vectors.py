"""Feed worked examples through the sockets, and compare the records that billing makes with what is expected.

    python tests/load/bill_vectors.py CASES.json [CASES.json ...] [--versions 1.6 2.0.1] [--run-file .busbar/run.json]

The files are those of `price_vectors.py`. Each case has a station of its own, at a site of its own with the case's time
zone and tariff, and is told in each version of OCPP as far as that has words for it: no reservations, and in 1.6 no
charging states and no fractions of a register. Totals are rounded as charged. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from busbar.local.runfile import RunFile
from busbar.ocpp.versions import Version
from busbar.pricing.jsontext import parse_json
from busbar.pricing.money import MINOR_DIGITS
from tests.load.billing import CONFIGURED_SECONDS, Charged, charged, post
from tests.load.replay_client import Chaos, Counts, Payload, ReplayStation
from tests.load.replay_sessions import system

_DATES = ("start_date_time", "end_date_time")


@dataclass(frozen=True, slots=True)
class Job:
    """One case in one version."""

    case: dict[str, Any]
    station: ReplayStation


def inexpressible(case: dict[str, Any], version: Version) -> str | None:
    """Why a case cannot be told in a version of OCPP; `None` if it can."""
    feed = case["feed"]
    if any(item["ev"] in ("reserve", "reservation_expired") for item in feed):
        return "a reservation"
    if not any(name in case["expected"] for name in ("total_excl", "total_incl")):
        return "no total is expected"
    if version is Version.V16:
        if any(item.get("state", "Charging") != "Charging" for item in feed):
            return "charging states"
        if any(Decimal(item["register_wh"]) % 1 for item in feed if "register_wh" in item):
            return "fractions of a register"
    return None


def sampled(item: dict[str, Any], version: Version, context: str) -> list[Payload]:
    """The sampled values of one line of the feed."""
    found: list[Payload] = []
    for key, measurand, unit in (
        ("register_wh", "Energy.Active.Import.Register", "Wh"),
        ("power_w", "Power.Active.Import", "W"),
        ("current_a", "Current.Import", "A"),
    ):
        if key in item:
            value: Payload = {"measurand": measurand, "context": context}
            if version is Version.V16:
                found.append(value | {"value": item[key], "unit": unit})
            else:
                found.append(value | {"value": float(item[key]), "unitOfMeasure": {"unit": unit}})
    return found


async def tell_16(job: Job) -> None:
    """The case in the words of OCPP 1.6."""
    station, feed = job.station, job.case["feed"]
    await station.call("BootNotification", {"chargePointVendor": "Vectors", "chargePointModel": "16"})
    transaction_id = 0
    for item in feed:
        moment = item["t"]
        if item["ev"] == "start":
            start = {"connectorId": 1, "idTag": "VECTOR", "meterStart": int(item["register_wh"]), "timestamp": moment}
            transaction_id = (await station.call("StartTransaction", start))["transactionId"]
        elif item["ev"] == "stop":
            stop = {"transactionId": transaction_id, "meterStop": int(item["register_wh"]), "timestamp": moment}
            await station.call("StopTransaction", stop)
        elif values := sampled(item, Version.V16, "Sample.Periodic"):
            meter = [{"timestamp": moment, "sampledValue": values}]
            await station.call("MeterValues", {"connectorId": 1, "transactionId": transaction_id, "meterValue": meter})


async def tell_201(job: Job) -> None:
    """The case in the words of OCPP 2.0.1."""
    station = job.station
    boot = {"reason": "PowerUp", "chargingStation": {"vendorName": "Vectors", "model": "201"}}
    await station.call("BootNotification", boot)
    for payload in _events(job):
        await station.call("TransactionEvent", payload)


def _events(job: Job) -> Iterator[Payload]:
    contexts = {"start": "Transaction.Begin", "stop": "Transaction.End"}
    kinds = {"start": "Started", "stop": "Ended"}
    triggers = {"start": "Authorized", "stop": "StopAuthorized", "state": "ChargingStateChanged"}
    for number, item in enumerate(job.case["feed"]):
        event: Payload = {
            "eventType": kinds.get(item["ev"], "Updated"),
            "timestamp": item["t"],
            "triggerReason": triggers.get(item["ev"], "MeterValuePeriodic"),
            "seqNo": number,
            "transactionInfo": {"transactionId": job.station.station_id[-36:]},
        }
        if "state" in item:
            event["transactionInfo"]["chargingState"] = item["state"]
        values = sampled(item, Version.V201, contexts.get(item["ev"], "Sample.Periodic"))
        if values:
            event["meterValue"] = [{"timestamp": item["t"], "sampledValue": values}]
        if item["ev"] == "start":
            event |= {"evse": {"id": 1, "connectorId": 1}, "idToken": {"idToken": "VECTOR", "type": "Central"}}
        yield event


def configure(run: RunFile, name: str, case: dict[str, Any], version: Version) -> Job:
    """A site, a tariff and a station for one case."""
    tariff = {key: value for key, value in case["tariff"].items() if key not in _DATES} | {"id": name}
    post(run, "/v1/sites", {"site_id": name, "time_zone": case["location"]["time_zone"]})
    post(run, "/v1/tariffs", tariff)
    post(run, "/v1/tariff-assignments", {"tariff_id": name, "scope": "site", "subject": name})
    password = post(run, "/v1/stations", {"station_id": name, "site_id": name})["password"]
    urls = [edge.url for edge in run.edges]
    station = ReplayStation(name, password, version, urls, random=Random(name), chaos=Chaos(), counts=Counts())
    return Job(case, station)


def judge(job: Job, found: Charged | None) -> tuple[str, str, str]:
    """What was expected, what was found, and the verdict."""
    expected = job.case.get("spec_expected") or job.case["expected"]
    unit = Decimal(1).scaleb(-MINOR_DIGITS[job.case["tariff"]["currency"]])
    names = [name for name in ("total_excl", "total_incl") if name in expected]
    wanted = [Decimal(expected[name]).quantize(unit, ROUND_HALF_UP) for name in names]
    if found is None or found.status != "priced":
        return str(wanted), "" if found is None else f"{found.status}: {found.reason}", "DIFFERS"
    got = [found.excl if name == "total_excl" else found.incl for name in names]
    disputed = "disputed" if job.case.get("disputed") else "DIFFERS"
    return " ".join(map(str, wanted)), " ".join(map(str, got)), "ok" if got == wanted else disputed


async def main(options: argparse.Namespace) -> int:
    cases = [case for path in options.files for case in parse_json(path.read_text())["cases"]]
    wrong = told = 0
    async with system(options.run_file) as run:
        post(run, "/v1/tokens", {"id_token": "VECTOR", "allow_concurrent": True, "max_concurrent": 10_000})
        jobs: list[Job] = []
        stamp = int(time.time()) % 10**7
        for version in map(Version, options.versions):
            for number, case in enumerate(cases):
                reason = inexpressible(case, version)
                if reason is None:
                    jobs.append(configure(run, f"BV{version.label}-{stamp}-{number}", case, version))
                else:
                    print(f"{version} {case['id']:42} not told: {reason}")
        await asyncio.sleep(CONFIGURED_SECONDS)
        for job in jobs:
            await (tell_16 if job.station.version is Version.V16 else tell_201)(job)
            await job.station.close()
        found = await charged(run.postgres.url, [job.station.station_id for job in jobs], len(jobs))
        by_station = {each.station_id: each for each in found}
        for job in jobs:
            wanted, got, verdict = judge(job, by_station.get(job.station.station_id))
            told += 1
            wrong += verdict == "DIFFERS"
            print(f"{job.station.version} {job.case['id']:42} {wanted:>14} {got:>14}  {verdict}")
    print(f"{told} cases told, {wrong} differences")
    return 1 if wrong or not told else 0


def parse(arguments: list[str] | None = None) -> Any:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="worked examples, as JSON")
    parser.add_argument("--versions", nargs="+", default=["1.6", "2.0.1"], choices=["1.6", "2.0.1"])
    parser.add_argument("--run-file", type=Path, help="of a running stack; one is started unless given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(main(parse())))
