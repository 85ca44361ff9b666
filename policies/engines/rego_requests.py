"""From a `DecisionRequest` to the ``input`` document of a Rego policy.

`policies.engines.rego` documents the mapping for those who write policies; this module does it, for our own engine, for
an operator's OPA server, and for whoever compares the two.

Numbers. Rego reads JSON numbers, and regorus keeps them as 64-bit integers or as doubles. A number therefore goes in
only if it survives that: an integer of 64 bits with sign, or a decimal that is the shortest text of some double (every
number that a program printed from a double is one, and every one with at most 15 digits). Comparisons of such numbers
are exact; sums and products of fractions are not, which is why `policies.parameters` adds.

INVARIANT 7: a number that would not go in exactly is an error that names where it stands, never rounded. INVARIANT 8:
the input document is a function of bundle and recorded request alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from msgspec import UNSET

from ledger.canonical import JSONValue
from ledger.errors import PolicyError
from policies.boundaries import BoundaryFacts
from policies.model import DecisionRequest
from policies.parameters import (
    FixedDecimal,
    ParameterError,
    ParameterSet,
    ParameterValue,
    read_arguments,
)
from policies.signals import signal_facts
from policies.windows import WindowError, WindowSet

__all__ = [
    "InexactNumberError",
    "InputRefusedError",
    "RegoValue",
    "exact_document",
    "exact_number",
    "input_document",
    "rego_input",
]

RegoValue: TypeAlias = "bool | int | float | str | list[RegoValue] | dict[str, RegoValue] | None"
"""What goes in: every number of it is held exactly."""

_LONG_MIN: Final = -(2**63)
_LONG_MAX: Final = 2**63 - 1
_MAX_WHOLE_EXPONENT: Final = 19  # decimal exponent beyond which no 64-bit integer lies
_MAX_EXPONENT: Final = 400  # beyond a double's in either direction; keeps powers of ten small


class InexactNumberError(PolicyError):
    """A number cannot be handed to Rego exactly; the message names no value."""


def _whole(number: Decimal) -> int | None:
    """Return a decimal as an integer of 64 bits, if it is one."""
    if number.adjusted() > _MAX_WHOLE_EXPONENT or number != number.to_integral_value():
        return None
    whole = int(number)
    return whole if _LONG_MIN <= whole <= _LONG_MAX else None


def exact_number(number: int | Decimal) -> int | float:
    """Return a number as Rego will hold it, exactly.

    Raises:
        InexactNumberError: It is no integer of 64 bits with sign, and no text of a double.
    """
    if isinstance(number, int):
        if _LONG_MIN <= number <= _LONG_MAX:
            return number
        raise InexactNumberError("an integer beyond 64 bits")
    if not number:
        return 0
    whole = _whole(number)
    if whole is not None:
        return whole
    if abs(number.adjusted()) <= _MAX_EXPONENT:
        double = float(number)
        if Decimal(repr(double)) == number:
            return double
    raise InexactNumberError("a number that no double holds exactly")


def exact_document(value: JSONValue) -> RegoValue:
    """Return a JSON document as Rego will hold it.

    Args:
        value: What `ledger.canonical.parse_json` returned.

    Raises:
        InexactNumberError: A number in it cannot be held exactly.
    """
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, dict):
        return {name: exact_document(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact_document(item) for item in value]
    if isinstance(value, float):  # the strict reader yields none
        raise InexactNumberError("a number that is not as it was written")
    return exact_number(value)


def rego_input(
    request: DecisionRequest,
    *,
    parameters: Mapping[str, RegoValue],
    windows: Mapping[str, RegoValue],
    arguments: Mapping[str, RegoValue],
    boundary: BoundaryFacts,
) -> dict[str, RegoValue]:
    """Return the input document of a request.

    Args:
        request: The request.
        parameters: The parameters that the bundle declares, exact.
        windows: The behaviour windows that the bundle declares, exact.
        arguments: The whole arguments, exact; see `exact_document`.
        boundary: What the bundle's boundaries say of the request.

    Returns:
        A document with the members that `policies.engines.rego` lists; ``principal.user``, ``resource.name`` and
        ``signals`` are left out where there is none.
    """
    principal, resource, time, state = request.principal, request.resource, request.time, request.state
    who: dict[str, RegoValue] = {
        "agent": principal.agent,
        "roles": list(principal.roles),
        "authn": principal.authn,
        "mfa": principal.mfa,
    }
    if principal.user is not None:
        who["user"] = principal.user
    what: dict[str, RegoValue] = {"server": resource.server, "tags": list(resource.tags)}
    if resource.name is not None:
        what["name"] = resource.name
    found: dict[str, RegoValue] = {}
    if request.signals is not UNSET:
        facts = signal_facts(request.signals)
        found["signals"] = {name: [*value] if isinstance(value, list) else value for name, value in facts.items()}
    return {
        "principal": who,
        "action": request.action,
        "resource": what,
        "time": {
            "now_ms": time.now_ms,
            "zone": time.zone,
            "local_date": time.local_date,
            "hour": time.hour,
            "minute": time.minute,
            "weekday": time.weekday,
        },
        "environment": {"address": request.environment.address, "network": request.environment.network},
        "state": {
            "session": state.session,
            "calls": state.calls,
            "denied": state.denied,
            "started_ms": state.started_ms,
            "windows": dict(windows),
        },
        "args": dict(parameters),
        "arguments": dict(arguments),
        "boundary": {"known": boundary.known, "drift": list(boundary.drift)},
        **found,
    }


class InputRefusedError(PolicyError):
    """A request cannot be put to Rego.

    Attributes:
        reason: ``parameter_error``, ``ambiguous_parameter`` or ``request_error``.
        detail: Which parameter or window; ``arguments`` if it is the arguments as a whole.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def _exact_values(values: Mapping[str, ParameterValue]) -> dict[str, RegoValue]:
    """Return declared values as Rego will hold them; a set of text is a list without repetition."""
    found: dict[str, RegoValue] = {}
    for name, value in values.items():
        if isinstance(value, FixedDecimal):
            try:
                found[name] = exact_number(Decimal(str(value)))
            except InexactNumberError as error:
                raise InputRefusedError("parameter_error", name) from error
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def input_document(
    parameters: ParameterSet, windows: WindowSet, request: DecisionRequest, boundary: BoundaryFacts
) -> dict[str, RegoValue]:
    """Return the input document of a request under a bundle's declarations.

    Args:
        parameters: The bundle's parameters.
        windows: The bundle's behaviour windows.
        request: The request.
        boundary: What the bundle's boundaries say of it (`policies.boundaries.boundary_facts`).

    Raises:
        InputRefusedError: The arguments are no strict JSON object, or a number, parameter or window is not exact or
            not there.
    """
    resource = request.resource
    try:
        root = read_arguments(request.arguments)
        found = parameters.read(request.action, resource.server, resource.name, root)
        measured = windows.values(request)
    except ParameterError as error:
        raise InputRefusedError(error.reason, error.parameter) from error
    except WindowError as error:
        raise InputRefusedError(error.reason, error.window) from error
    try:
        arguments = {name: exact_document(item) for name, item in root.items()}
    except InexactNumberError as error:
        raise InputRefusedError("parameter_error", "arguments") from error
    return rego_input(
        request,
        parameters=_exact_values(found),
        windows=_exact_values(measured),
        arguments=arguments,
        boundary=boundary,
    )
