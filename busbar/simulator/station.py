"""A simulated station without I/O: fed with frames and the time, drained of frames.

The station keeps its own clock in seconds since 1970; whoever drives it decides how fast that clock runs. What it says
in its version's words is in `station16` and `station2`, how it answers commands in `commands16` and `commands2`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from busbar.ocpp.actions import is_known
from busbar.ocpp.errors import OcppError, Problem, error_code
from busbar.ocpp.frames import Call
from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.validation import validate_request, validate_response
from busbar.ocpp.versions import Version
from busbar.simulator.agenda import Agenda
from busbar.simulator.link import Link, LinkSettings, Payload
from busbar.simulator.meter import Reading
from busbar.simulator.outlet import Outlet, Phase, StopCause, Transaction
from busbar.simulator.plan import Behaviour, Visits, stream
from busbar.simulator.tally import Tally

REBOOT_SECONDS = 15.0
BOOT_RETRY_SECONDS = 30.0


class Unsupported(Exception):  # noqa: N818 - a kind of answer rather than an error
    """The station knows this command and does not do such things: it answers NotSupported."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a station reconnects. Spec: OCPP 2.0.1 Part 4 §5.3. Times in seconds of its clock."""

    wait_minimum_seconds: float = 3.0
    random_range_seconds: float = 3.0
    repeat_times: int = 5
    """How often the wait is doubled."""


@dataclass(frozen=True, slots=True)
class Model:
    """What kind of station it is."""

    vendor: str
    name: str
    firmware_version: str
    outlets: int
    direct_current: bool
    max_power_w: float


MODELS: tuple[Model, ...] = (
    Model("Ampère & Söhne", "AS-22 Duo", "4.2.1", 2, False, 22_000.0),
    Model("Voltera", "Wall 11", "1.9.0-rc2", 1, False, 11_000.0),
    Model("Voltera", "Hyper 150", "7.0.3", 2, True, 150_000.0),
    Model("Kilowatts", "K50", "2024.11", 1, True, 50_000.0),
)


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What all stations of a fleet have in common."""

    seed: int
    tokens: tuple[str, ...]
    behaviour: Behaviour = field(default_factory=Behaviour)
    backoff: Backoff = field(default_factory=Backoff)
    link: LinkSettings = field(default_factory=LinkSettings)


@dataclass(slots=True)
class Memory:
    """What outlives the process if somebody keeps it: a meter's register never starts again."""

    registers_wh: dict[int, float] = field(default_factory=dict)


class Station(ABC):
    """One station.

    Args:
        started_at: Its clock when it is switched on; part of its transaction ids, so that those of two runs differ.
    """

    version: Version

    def __init__(
        self,
        station_id: str,
        settings: StationSettings,
        tally: Tally,
        *,
        started_at: float,
        memory: Memory | None = None,
    ) -> None:
        self.station_id = station_id
        self.settings = settings
        self.tally = tally
        self.agenda = Agenda()
        self.link = Link(station_id, self.version, tally, settings.link)
        self.started_at = started_at
        self.boot_reason = "PowerUp"
        self.wants_connection = True
        """Set while it should have a connection or look for one; cleared while it reboots."""
        self.connect_at = started_at
        """When it tries to connect next."""
        self.close_requested = False
        """Set when it hangs up by itself; whoever holds the socket closes it."""
        self.heartbeat_seconds = 0.0
        self._random = stream(settings.seed, station_id, "connection")
        traits = stream(settings.seed, station_id, "traits")
        self.model = traits.choice(MODELS)
        self.serial_number = f"{traits.randrange(16**8):08X}"
        self.iccid = f"8949{traits.randrange(10**15):015d}"
        self.imsi = f"26201{traits.randrange(10**10):010d}"
        self._attempts = 0
        self._registered = False
        self._rebooting = False
        kept = memory.registers_wh if memory else {}
        self.outlets = [
            self._make_outlet(number, kept.get(number, traits.uniform(1e5, 5e7)))
            for number in range(1, self.model.outlets + 1)
        ]
        for outlet in self.outlets:
            outlet.open(started_at)
        self._plan_drop(started_at)

    def _make_outlet(self, number: int, register_wh: float) -> Outlet:
        def visits(kind: str) -> Visits:
            source = stream(self.settings.seed, self.station_id, kind, number)
            behaviour = self.settings.behaviour
            return Visits(source, self.settings.tokens, behaviour, direct_current=self.model.direct_current)

        return Outlet(
            number=number,
            max_power_w=self.model.max_power_w,
            direct_current=self.model.direct_current,
            register_wh=register_wh,
            visits=visits("drivers"),
            remote_visits=visits("remote drivers"),
            teller=self,
            agenda=self.agenda,
            sample_interval_seconds=self.settings.behaviour.sample_interval_seconds,
        )

    # The shell's side: connection, frames and time

    def opened(self, now: float) -> None:
        """The WebSocket is open. After a mere loss of connection nothing is booted again (OCPP 2.0.1 Part 4 §5.4)."""
        self.tally.connects += 1
        self._attempts = 0
        self.link.opened()
        if not self._registered:
            self.boot(now)
        else:
            self._tell_missed_statuses(now)
        self._plan_heartbeat(now)
        self.link.step(now)

    def closed(self, now: float) -> None:
        """The WebSocket is gone, for whatever reason."""
        self.link.closed(now)
        self.close_requested = False
        if self.wants_connection:
            self.connect_at = now + self._next_wait()

    def connect_failed(self, now: float) -> None:
        """The WebSocket did not open."""
        self.tally.connects_failed += 1
        self.connect_at = now + self._next_wait()

    def receive(self, text: str, now: float) -> None:
        """Take in a frame."""
        self.agenda.run(now)
        call = self.link.receive(text, now)
        if call is not None:
            self._obey(call, now)
        self.link.step(now)

    def step(self, now: float) -> None:
        """Do what is due by now."""
        self.agenda.run(now)
        self.link.step(now)

    def due(self) -> float:
        """When `step` is next of use."""
        return min(self.agenda.due(), self.link.due())

    def frames_to_send(self) -> list[str]:
        return self.link.frames_to_send()

    def memory(self, now: float) -> Memory:
        """What is to be kept for the next run."""
        return Memory({outlet.number: outlet.reading(now).register_wh for outlet in self.outlets})

    # Booting, connecting, beating

    def boot(self, now: float) -> None:
        """Boot, again if need be: without an answer nothing else may be said."""
        self.agenda.cancel("boot")
        self.link.call("BootNotification", self.boot_payload(), self._booted, self._boot_unanswered, urgent=True)

    def _boot_unanswered(self, now: float) -> None:
        if self.link.connected:
            self.agenda.at(now + BOOT_RETRY_SECONDS, "boot", self.boot)

    def _booted(self, payload: Payload, now: float) -> None:
        status = str(payload.get("status"))
        self.tally.boots[status] += 1
        self.link.accepted = status == "Accepted"
        interval = payload.get("interval")
        seconds = float(interval) if isinstance(interval, int) and interval > 0 else 300.0
        if status != "Accepted":
            self.agenda.at(now + seconds, "boot", self.boot)
            return
        first = not self._registered
        self._registered = True
        self.heartbeat_seconds = seconds
        self._plan_heartbeat(now)
        if first:
            self.after_boot(now)
            for outlet in self.outlets:
                outlet.told = None
        self._tell_missed_statuses(now)

    def set_heartbeat(self, seconds: float, now: float) -> None:
        """An operator changes the interval; 0 leaves it as it is."""
        self.heartbeat_seconds = seconds or self.heartbeat_seconds
        self._plan_heartbeat(now)

    def _plan_heartbeat(self, now: float) -> None:
        if self.heartbeat_seconds:
            self.agenda.at(now + self.heartbeat_seconds, "heartbeat", self._heartbeat)

    def _heartbeat(self, now: float) -> None:
        self.link.call("Heartbeat", {})
        self._plan_heartbeat(now)

    def _tell_missed_statuses(self, now: float) -> None:
        for outlet in self.outlets:
            if outlet.told is not outlet.phase:
                self.tell_status(outlet, now)

    def _next_wait(self) -> float:
        backoff = self.settings.backoff
        doubled = backoff.wait_minimum_seconds * 2.0 ** min(self._attempts, backoff.repeat_times)
        self._attempts += 1
        return doubled + self._random.uniform(0, backoff.random_range_seconds)

    def _plan_drop(self, now: float) -> None:
        rate = self.settings.behaviour.drops_per_hour
        if rate > 0:
            self.agenda.at(now + self._random.expovariate(rate / 3600), "drop", self._drop)

    def _drop(self, now: float) -> None:
        self.close_requested = self.link.connected
        self._plan_drop(now)

    def reboot(self, cause: StopCause, reason: str, now: float) -> None:
        """End everything, hang up once what is queued was sent, and come back as new."""
        for outlet in self.outlets:
            outlet.stop(cause, now)
        self.boot_reason = reason
        self._rebooting = True
        self.agenda.at(now + REBOOT_SECONDS / 3, "hang up", self._hang_up)

    def _hang_up(self, now: float) -> None:
        self.close_requested = self.link.connected
        self.wants_connection = False
        self.agenda.cancel("heartbeat", "boot")
        self.agenda.at(now + REBOOT_SECONDS, "restart", self._restart)

    def _restart(self, now: float) -> None:
        self._rebooting = self._registered = self.link.accepted = False
        for outlet in self.outlets:
            outlet.reset(now)
        self.wants_connection = True
        self.connect_at = now
        self._attempts = 0

    @property
    def is_rebooting(self) -> bool:
        return self._rebooting

    # Commands

    def _obey(self, call: Call, now: float) -> None:
        self.tally.commands[call.action] += 1
        try:
            payload = self._answer(call, now)
        except OcppError as error:
            self.link.refuse(call.message_id, error)
            return
        try:
            validate_response(self.version, call.action, payload, strict=True)
        except OcppError as error:
            internal = OcppError(error_code(self.version, Problem.INTERNAL), f"the answer would not be valid: {error}")
            self.link.refuse(call.message_id, internal)
        else:
            self.link.answer(call.message_id, payload)

    def _answer(self, call: Call, now: float) -> Payload:
        """Raises `OcppError` for what the station cannot do."""
        handler = self.commands().get(call.action)
        if handler is None:
            problem = Problem.UNSUPPORTED_ACTION if is_known(call.action) else Problem.UNKNOWN_ACTION
            self.tally.fault(self.station_id, f"{call.action} is no command of OCPP {self.version}")
            raise OcppError(error_code(self.version, problem), f"no command {call.action} in OCPP {self.version}")
        try:
            validate_request(self.version, call.action, call.payload, strict=True)
        except OcppError as error:
            self.tally.fault(self.station_id, f"the command {call.action}: {error}")
            raise
        try:
            return handler(call.payload, now)
        except Unsupported as reason:
            code = error_code(self.version, Problem.UNSUPPORTED_ACTION)
            raise OcppError(code, str(reason)) from None

    def outlet(self, number: Any) -> Outlet | None:
        """The outlet of this number, if there is one."""
        return next((outlet for outlet in self.outlets if outlet.number == number), None)

    def free_outlet(self, id_token: str) -> Outlet | None:
        """An outlet where this driver could start."""
        for outlet in self.outlets:
            if outlet.is_free or (outlet.phase is Phase.RESERVED and outlet.reserved_for == id_token):
                return outlet
        return None

    # What the two families say each in their own way

    @abstractmethod
    def boot_payload(self) -> Payload: ...

    @abstractmethod
    def after_boot(self, now: float) -> None:
        """What is told once after a boot, before the statuses."""

    @abstractmethod
    def commands(self) -> Mapping[str, Callable[[Payload, float], Payload]]:
        """The commands that it knows, with what answers them."""

    @abstractmethod
    def tell_status(self, outlet: Outlet, now: float) -> None: ...

    @abstractmethod
    def ask_authorization(self, outlet: Outlet, id_token: str, now: float) -> None: ...

    @abstractmethod
    def tell_start(self, outlet: Outlet, transaction: Transaction, now: float) -> None: ...

    @abstractmethod
    def tell_sample(self, outlet: Outlet, transaction: Transaction, at: float) -> None: ...

    @abstractmethod
    def tell_state(self, outlet: Outlet, transaction: Transaction, now: float) -> None: ...

    @abstractmethod
    def tell_stop(self, outlet: Outlet, transaction: Transaction, cause: StopCause, now: float) -> None: ...

    @abstractmethod
    def tell_reservation_over(self, outlet: Outlet, reservation_id: int, now: float) -> None: ...

    def note_end(self, transaction: Transaction, reading: Reading) -> None:
        self.tally.sessions_ended += 1
        self.tally.energy_wh += reading.register_wh - transaction.register_start_wh


def timestamp(now: float) -> str:
    """A moment of the station's clock as OCPP writes it."""
    return format_timestamp_ms(math.floor(now * 1000))
