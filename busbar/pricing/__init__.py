"""The one pricing engine: pure, exact, with an explanation.

The running cost, the final cost on the display, the CDR and the tariff that an OCPP 2.1 station computes with all come
from here (rule 11). `docs/pricing.md` says how the specifications are read where they are silent.
"""

from busbar.pricing.bill import Amount, Bill, Cost, CostType, Line, LineKind
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import ChargingState, Fact, FactKind
from busbar.pricing.money import RoundAt, Rounding, RoundingMode
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.problems import Problem, TariffError
from busbar.pricing.selection import Circumstances
from busbar.pricing.state import Note, Period, SessionState
from busbar.pricing.tariff import Dimension, Tariff

__all__ = [
    "Amount",
    "Bill",
    "ChargingState",
    "Circumstances",
    "Cost",
    "CostType",
    "Dimension",
    "Fact",
    "FactKind",
    "Line",
    "LineKind",
    "Note",
    "Options",
    "Period",
    "Pricer",
    "Problem",
    "RoundAt",
    "Rounding",
    "RoundingMode",
    "SessionState",
    "Tariff",
    "TariffError",
    "parse_ocpi_tariff",
    "parse_ocpp_tariff",
]
