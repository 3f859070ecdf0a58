"""One outlet of a station: its drivers, its transactions and its meter, the same for every version of OCPP.

The outlet decides what happens; the station, in the words of its version, tells the CSMS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from busbar.simulator.agenda import Action, Agenda
from busbar.simulator.battery import Charge
from busbar.simulator.meter import Reading
from busbar.simulator.plan import Visit, Visits

FAULT_SECONDS = 120.0
REMOTE_PLUG_SECONDS = 5.0
"""How long a driver takes to plug in after an app has started the transaction."""


class Phase(Enum):
    """Where an outlet stands. Values: the status in 1.6, the connector status in 2.x."""

    FREE = ("Available", "Available")
    PLUGGED = ("Preparing", "Occupied")
    CHARGING = ("Charging", "Occupied")
    SUSPENDED_EV = ("SuspendedEV", "Occupied")
    SUSPENDED_EVSE = ("SuspendedEVSE", "Occupied")
    LEAVING = ("Finishing", "Occupied")
    RESERVED = ("Reserved", "Reserved")
    INOPERATIVE = ("Unavailable", "Unavailable")
    FAULTED = ("Faulted", "Faulted")


class StopCause(Enum):
    """Why a transaction ended. Values: 1.6 reason, 2.x stopped reason, 2.x trigger reason."""

    CARD = ("Local", "Local", "StopAuthorized")
    UNPLUGGED = ("EVDisconnected", "EVDisconnected", "EVDeparted")
    REMOTE = ("Remote", "Remote", "RemoteStop")
    SOFT_RESET = ("SoftReset", "ImmediateReset", "ResetCommand")
    HARD_RESET = ("HardReset", "ImmediateReset", "ResetCommand")
    REFUSED = ("DeAuthorized", "DeAuthorized", "Deauthorized")
    UNLOCKED = ("UnlockCommand", "Other", "UnlockCommand")
    FAULT = ("Other", "GroundFault", "AbnormalCondition")


@dataclass(slots=True)
class Transaction:
    """A transaction as the station keeps it."""

    id_token: str
    charge: Charge
    started_at: float
    register_start_wh: float
    remote_start_id: int | None = None
    reservation_id: int | None = None
    transaction_id: str = ""
    """2.x: the station's own. 1.6: what the CSMS has answered, as text; empty until then."""
    seq_no: int = 0
    """2.x: of the next event."""
    evse_told: bool = False
    """2.x: the EVSE is told once in a transaction."""
    tariff: dict[str, Any] | None = None
    """2.1: the TariffType that it is priced with, if the station was told one."""


class Teller(Protocol):
    """The station, as its outlets see it."""

    def tell_status(self, outlet: Outlet, now: float) -> None: ...
    def ask_authorization(self, outlet: Outlet, id_token: str, now: float) -> None: ...
    def tell_start(self, outlet: Outlet, transaction: Transaction, now: float) -> None: ...
    def tell_sample(self, outlet: Outlet, transaction: Transaction, at: float) -> None: ...
    def tell_state(self, outlet: Outlet, transaction: Transaction, now: float) -> None: ...
    def tell_stop(self, outlet: Outlet, transaction: Transaction, cause: StopCause, now: float) -> None: ...
    def tell_reservation_over(self, outlet: Outlet, reservation_id: int, now: float) -> None: ...


@dataclass(slots=True)
class Outlet:
    """One connector of 1.6, or one EVSE of 2.x with its only connector."""

    number: int
    max_power_w: float
    direct_current: bool
    register_wh: float
    visits: Visits
    remote_visits: Visits
    """Drivers who come because of a remote start: a stream of their own, for nobody knows when they come."""
    teller: Teller
    agenda: Agenda
    sample_interval_seconds: float
    phase: Phase = Phase.FREE
    operative: bool = True
    reservation_id: int | None = None
    reserved_for: str = ""
    visit: Visit | None = None
    transaction: Transaction | None = None
    limit_w: float = math.inf
    """What charging profiles leave of `max_power_w`."""
    told: Phase | None = field(default=None)
    """The phase that the CSMS was last told."""

    def open(self, now: float) -> None:
        """Wait for the first driver."""
        self._await_driver(now)

    def reading(self, at: float) -> Reading:
        """What the meter shows."""
        if self.transaction is None:
            return Reading(self.register_wh, 0.0, self.direct_current, None)
        charge = self.transaction.charge
        power = charge.power_w(at) if self.phase is Phase.CHARGING else 0.0
        soc = charge.soc(at) if self.direct_current else None
        return Reading(self.transaction.register_start_wh + charge.energy_wh(at), power, self.direct_current, soc)

    @property
    def is_free(self) -> bool:
        """Whether a transaction could be started here."""
        return self.operative and self.phase in (Phase.FREE, Phase.PLUGGED) and self.transaction is None

    # Drivers

    def _await_driver(self, now: float) -> None:
        self.visit = self.visits.next()
        self._plan("arrive", now + self.visit.gap_seconds, self._arrive)

    def _arrive(self, now: float) -> None:
        if self.phase is not Phase.FREE or self.visit is None:
            self._await_driver(now)  # sees that the outlet is not to be had, and drives on
            return
        self._enter(Phase.PLUGGED, now)
        self._plan("card", now + self.visit.card_delay_seconds, self._hold_card)

    def _hold_card(self, now: float) -> None:
        if self.visit is not None:
            self.teller.ask_authorization(self, self.visit.id_token, now)

    def authorized(self, accepted: bool, now: float) -> None:
        """The answer to the card, from the CSMS or from the station's own lists."""
        if self.phase is not Phase.PLUGGED or self.transaction is not None or self.visit is None:
            return
        if accepted:
            self._start(self.visit, self.visit.id_token, now)
        else:
            self._leave(now)

    def start_remotely(self, id_token: str, remote_start_id: int | None, now: float) -> None:
        """A driver with an app: plugs in soon, or has done so already. The outlet must be free."""
        self.agenda.cancel(self._label("arrive"), self._label("card"))
        visit = self.remote_visits.next()
        self.visit = visit
        delay = 0.0 if self.phase is Phase.PLUGGED else REMOTE_PLUG_SECONDS
        if self.phase is not Phase.PLUGGED:
            self._enter(Phase.PLUGGED, now)
        self._plan("remote", now + delay, lambda at: self._start(visit, id_token, at, remote_start_id))

    # The transaction

    def _start(self, visit: Visit, id_token: str, now: float, remote_start_id: int | None = None) -> None:
        charge = Charge(visit.vehicle, min(self.max_power_w, self.limit_w), now)
        self.transaction = Transaction(id_token, charge, now, self.register_wh, remote_start_id, self.reservation_id)
        if self.reservation_id is not None:
            self._drop_reservation()
        self.phase = Phase.CHARGING
        self.teller.tell_start(self, self.transaction, now)
        self.teller.tell_status(self, now)
        self._plan("sample", now + self.sample_interval_seconds, self._sample)
        self._plan("full", charge.full_at(), self._full)
        self._plan("impatient", now + visit.patience_seconds, self._stop_by_driver)
        if visit.fault_after_seconds is not None:
            self._plan("fault", now + visit.fault_after_seconds, self._fault)

    def _sample(self, at: float) -> None:
        if self.transaction is not None:
            self.teller.tell_sample(self, self.transaction, at)
            self._plan("sample", at + self.sample_interval_seconds, self._sample)

    def _full(self, now: float) -> None:
        if self.transaction is None or self.visit is None:
            return
        self._enter(Phase.SUSPENDED_EV, now)
        self.teller.tell_state(self, self.transaction, now)
        self._plan("linger", now + self.visit.linger_seconds, self._stop_by_driver)

    def _stop_by_driver(self, now: float) -> None:
        cause = StopCause.UNPLUGGED if self.visit is not None and self.visit.unplugs_to_stop else StopCause.CARD
        self.stop(cause, now)

    def stop(self, cause: StopCause, now: float) -> None:
        """End the transaction; the driver leaves soon after."""
        transaction = self.transaction
        if transaction is None:
            return
        self.agenda.cancel(*map(self._label, ("sample", "full", "linger", "impatient", "fault")))
        self.register_wh = self.reading(now).register_wh
        self.teller.tell_stop(self, transaction, cause, now)
        self.transaction = None
        if self.phase is Phase.FAULTED:
            return
        if cause is StopCause.UNPLUGGED:
            self._leave(now)
            return
        self._enter(Phase.LEAVING, now)
        self._plan("leave", now + (self.visit.leave_seconds if self.visit else 10.0), self._leave)

    def _leave(self, now: float) -> None:
        self.agenda.cancel(self._label("leave"), self._label("card"), self._label("remote"))
        self._enter(self._resting_phase(), now)
        self._await_driver(now)

    def limit(self, limit_w: float, now: float) -> None:
        """A charging profile has changed what the outlet may offer."""
        self.limit_w = limit_w
        transaction = self.transaction
        if transaction is None or self.phase not in (Phase.CHARGING, Phase.SUSPENDED_EVSE):
            return
        transaction.charge.limit(min(self.max_power_w, limit_w), now)
        phase = Phase.SUSPENDED_EVSE if limit_w <= 0 else Phase.CHARGING
        if phase is not self.phase:
            self._enter(phase, now)
            self.teller.tell_state(self, transaction, now)
        self._plan("full", transaction.charge.full_at(), self._full)

    # What operators and accidents do

    def set_operative(self, operative: bool, now: float) -> bool:
        """Take out of service or put back. Returns whether it happened at once, rather than after the transaction."""
        self.operative = operative
        if self.phase in (Phase.FREE, Phase.RESERVED, Phase.INOPERATIVE):
            self._enter(self._resting_phase(), now)
            return True
        return operative

    def reserve(self, reservation_id: int, id_token: str, until: float, now: float) -> None:
        """Keep the outlet for one driver. It must be free, or reserved under the same id."""
        self.reservation_id, self.reserved_for = reservation_id, id_token
        self._plan("reservation", until, self._reservation_over)
        self._enter(Phase.RESERVED, now)

    def _reservation_over(self, now: float) -> None:
        reservation_id = self.reservation_id
        self.end_reservation(now)
        if reservation_id is not None:
            self.teller.tell_reservation_over(self, reservation_id, now)

    def end_reservation(self, now: float) -> None:
        self._drop_reservation()
        if self.phase is Phase.RESERVED:
            self._enter(self._resting_phase(), now)

    def _drop_reservation(self) -> None:
        self.reservation_id, self.reserved_for = None, ""
        self.agenda.cancel(self._label("reservation"))

    def unlock(self, now: float) -> None:
        """The cable comes loose, whatever was going on."""
        self.stop(StopCause.UNLOCKED, now)

    def _fault(self, now: float) -> None:
        self.phase = Phase.FAULTED
        self.stop(StopCause.FAULT, now)
        self.teller.tell_status(self, now)
        self._plan("repair", now + FAULT_SECONDS, self._leave)

    def reset(self, now: float) -> None:
        """Forget drivers and plans, as a reboot does; the transaction must have ended."""
        labels = ("arrive", "card", "remote", "sample", "full", "linger", "impatient", "fault", "repair", "leave")
        self.agenda.cancel(*map(self._label, labels))
        self.phase = self._resting_phase()
        self.told = None
        self._await_driver(now)

    def _resting_phase(self) -> Phase:
        if not self.operative:
            return Phase.INOPERATIVE
        return Phase.RESERVED if self.reservation_id is not None else Phase.FREE

    def _enter(self, phase: Phase, now: float) -> None:
        if phase is not self.phase:
            self.phase = phase
            self.teller.tell_status(self, now)

    def _plan(self, what: str, at: float, action: Action) -> None:
        self.agenda.at(at, self._label(what), action)

    def _label(self, what: str) -> str:
        return f"{self.number} {what}"
