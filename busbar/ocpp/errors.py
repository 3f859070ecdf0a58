"""OCPP error codes: one table turns (version, problem) into the code that the version spells.

Spec: OCPP-J 1.6 §4.2.3, OCPP 2.0.1 and 2.1 Part 4 §4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from busbar.ocpp.versions import Version

MAX_DESCRIPTION = 255
"""Characters of an error description. Spec: OCPP-J 1.6 §4.2.3, OCPP 2.0.1 Part 4 §4.2.3."""


class Problem(Enum):
    """What is wrong, independent of a version's spelling. Values: the code in 1.6, the code in 2.x."""

    UNREADABLE = ("FormationViolation", "RpcFrameworkError", 0)
    """Not a JSON array, or its message id cannot be read. 1.6 has no answer to it."""
    FRAME_STRUCTURE = ("FormationViolation", "RpcFrameworkError", 1)
    """The message id is there, but the array is not a frame of its type."""
    MESSAGE_TYPE = ("NotSupported", "MessageTypeNotSupported", 2)
    """An unknown message type number. In 1.6 it is ignored (OCPP-J 1.6 §4.1.3)."""
    SYNTAX = ("FormationViolation", "FormatViolation", 3)
    """The text is not JSON, though the message id can be made out; or fields that the action does not have."""
    PAYLOAD_STRUCTURE = ("FormationViolation", "ProtocolError", 4)
    """The payload is not an object: it does not conform to the PDU structure."""
    OCCURRENCE = ("OccurenceConstraintViolation", "OccurrenceConstraintViolation", 5)
    """A required field is missing, or a list has too few or too many members."""
    TYPE = ("TypeConstraintViolation", "TypeConstraintViolation", 6)
    PROPERTY = ("PropertyConstraintViolation", "PropertyConstraintViolation", 7)
    """A field of the right type has a value that it may not have."""
    UNKNOWN_ACTION = ("NotImplemented", "NotImplemented", 8)
    """No version of OCPP that we speak has this action."""
    UNSUPPORTED_ACTION = ("NotSupported", "NotSupported", 9)
    """The action exists, but not in this version or not in this direction."""
    INTERNAL = ("InternalError", "InternalError", 10)
    SECURITY = ("SecurityError", "SecurityError", 11)
    GENERIC = ("GenericError", "GenericError", 12)


def error_code(version: Version, problem: Problem) -> str:
    """The code of a CALLERROR for this problem, as the version spells it."""
    return problem.value[1] if version.is_v2 else problem.value[0]


class OcppError(Exception):
    """What is wrong with a CALL or CALLRESULT, in the words of a CALLERROR.

    Args:
        code: As the version spells it.
        description: What is wrong and where; never the value of an id token or a password.
    """

    def __init__(self, code: str, description: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code
        self.description = description[:MAX_DESCRIPTION]
        self.details: Mapping[str, Any] = details or {}


class FrameError(Exception):
    """A text that is not an OCPP-J frame.

    Args:
        code: The code in the spelling of OCPP 2.x; `error_code(version, problem)` spells it for others.
        message_id: `None` if it cannot be read. OCPP 2.x answers with `-1` then, 1.6 not at all.
        message_type: The message type number, if it can be read.
    """

    def __init__(
        self, problem: Problem, message_id: str | None, description: str, message_type: int | None = None
    ) -> None:
        super().__init__(description)
        self.problem = problem
        self.code = error_code(Version.V201, problem)
        self.message_id = message_id
        self.description = description[:MAX_DESCRIPTION]
        self.message_type = message_type


def calls_for_answer(version: Version, error: FrameError) -> bool:
    """Whether a frame that cannot be read is answered with a CALLERROR.

    A broken answer is never answered with a CALLERROR, lest two ends send each other errors for ever.
    """
    if error.message_type in (3, 4, 5, 6):
        return False
    if version.is_v2:
        # Part 4 §4.2.3: when the message id cannot be read, the CALLERROR contains "-1".
        return True
    # OCPP-J 1.6 §4.1.3: the payload of an unknown message type is ignored; there is no answer without an id.
    return error.message_id is not None and error.problem is not Problem.MESSAGE_TYPE
