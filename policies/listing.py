"""What a list may show: whether a call could be permitted, with whatever arguments.

Pure. A client that lists a server's tools shall see those that it could call. A policy, though, looks at the arguments
of a call, and a list has none. So an engine is asked about a call whose arguments are *unknown*, and answers for all
arguments at once:

* PERMIT: some arguments may exist with which the call is permitted, or held for approval;
* anything else: with every arguments the call is refused.

INVARIANT: an engine errs to one side alone: what some arguments would allow is never refused here. How closely it keeps
to the other side (what is certainly refused is refused here) differs, and each engine says so in its own text. What it
cannot tell, it permits.

Behaviour windows count as unknown too. They say how much is left for now and not what is allowed, and include the call
that is being decided; a list that followed them would flicker. So do signals (`policies.signals`): what is found in
arguments, and how unusual a call is, nobody can say without them. The state of a tool's definition, though, and whether
the agent's usual behaviour is known (`KNOWN_SIGNALS`) are the same whatever the arguments; a request that holds signals
says both, of an entry that has a name.

A PERMIT names the rules that may grant it, as far as the engine can tell them, and the obligations that come with every
permit of the call, whatever its arguments: ``approval`` there means that no call passes without a person. Reports of
privileges read both (`service.privilege_report`); lists do not.

A request with unknown arguments is never recorded and never enforced: no message can bring such a text for arguments,
because it is no JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import UNSET

from policies.engine import Reason
from policies.model import REQUEST_VERSION, SIGNALS_VERSION, Decision, DecisionRequest, Effect, Resource
from policies.signals import SIGNALS, Baseline, Signals, ToolState

__all__ = [
    "KNOWN_SIGNALS",
    "UNKNOWN_ARGUMENTS",
    "UNKNOWN_CALL",
    "Unknown",
    "Visibility",
    "classify",
    "listed_request",
    "signals_known",
    "unknown_in",
]

UNKNOWN_ARGUMENTS: Final = "?"
"""Stands for arguments that are not known."""

UNKNOWN_CALL: Final = "??"
"""Stands for arguments that are not known, of a resource of which no more than the server is known: a template's."""

KNOWN_SIGNALS: Final = frozenset({(SIGNALS, "tool_state"), (SIGNALS, "baseline")})
"""The signals that may be known without arguments, by where policies read them."""

_FAILURES: Final = frozenset({Reason.ENGINE_ERROR, Reason.LIMITED, Reason.BUNDLE_ERROR})


class Unknown(StrEnum):
    """What of a request is not known."""

    NOTHING = "nothing"
    ARGUMENTS = "arguments"
    CALL = "call"


class Visibility(StrEnum):
    """Whether an entry may be shown; ``FAILED`` if nobody could say."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    FAILED = "failed"


def listed_request(
    listing: DecisionRequest,
    *,
    action: str,
    name: str,
    tags: Sequence[str],
    template: bool = False,
    tool_state: ToolState | None = None,
    baseline: Baseline = "none",
) -> DecisionRequest:
    """Return the question whether an entry may be shown.

    Args:
        listing: The request for the list, of the same principal, at the same time and place.
        action: Method by which the entry would be called.
        name: Its name.
        tags: Its tags.
        template: The name stands for any number of names.
        tool_state: State of the tool's definition; None if nobody can say, nor of the baseline.
        baseline: Whether the agent's usual behaviour is known.
    """
    return msgspec.structs.replace(
        listing,
        version=REQUEST_VERSION if tool_state is None else SIGNALS_VERSION,
        signals=UNSET if tool_state is None else Signals(tool_state=tool_state, baseline=baseline),
        action=action,
        resource=Resource(server=listing.resource.server, name=name, tags=tuple(tags)),
        state=msgspec.structs.replace(listing.state, windows=UNSET, measured_by=UNSET),
        arguments=UNKNOWN_CALL if template else UNKNOWN_ARGUMENTS,
    )


def unknown_in(request: DecisionRequest) -> Unknown:
    """Return what of a request is not known; of every request that was ever recorded, nothing."""
    if request.arguments == UNKNOWN_ARGUMENTS:
        return Unknown.ARGUMENTS
    return Unknown.CALL if request.arguments == UNKNOWN_CALL else Unknown.NOTHING


def signals_known(request: DecisionRequest) -> bool:
    """Return whether a request with unknown arguments says those signals that are the same whatever they are."""
    return request.signals is not UNSET and unknown_in(request) is Unknown.ARGUMENTS


def classify(decision: Decision) -> Visibility:
    """Return what an engine's answer about unknown arguments means for a list."""
    if decision.effect is Effect.PERMIT:
        return Visibility.SHOWN
    if decision.effect is Effect.INDETERMINATE and decision.reason in _FAILURES:
        return Visibility.FAILED
    return Visibility.HIDDEN
