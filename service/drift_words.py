"""Departures and baselines in words, for people at the dashboard and at the command line. Pure."""

from __future__ import annotations

from typing import Final

from service.drift_book import BaselineLife

__all__ = ["CLOSED_AS", "EXPLANATIONS", "baseline_words", "blind_words", "detector_words", "measured_words"]

_DETECTORS: Final = {
    "new_server": "it calls a server that it never called",
    "new_tool": "it calls a tool that it never called",
    "new_transition": "a step that never followed the one before",
    "read_then_send": "it sends after having read what must not get out, by a way that it never went",
    "argument_shape": "arguments of a shape that calls of this tool never had",
    "unusual_hour": "it works at an hour at which it does not work",
    "tool_mix": "another mix of tools",
    "size_shift": "arguments of other sizes",
    "decision_mix": "more refusals",
    "rate": "more calls in an hour",
    "volume": "more calls in a day",
    "targets": "more different things called about in an hour",
    "fan_out": "more different tools in a session",
    "off_job_tool": "it calls a tool that its declared job does not have",
    "off_job_order": "a step that its declared job does not have at this place",
    "off_job_hours": "it works outside the hours of its declared job",
    "off_job_volume": "more than its declared job allows",
}
_NEVER: Final = frozenset({"new_server", "new_tool", "new_transition", "read_then_send", "argument_shape"})
_COUNTS: Final = frozenset({"rate", "volume", "targets", "fan_out"})

_BLIND: Final = {
    "sparse:transitions": "too few calls are known to say which step is new",
    "sparse:features": "too few calls are known to say which shape of arguments is new",
    "sparse:weekends": "no weekend is known",
    "saturated:servers": "it calls too many servers to tell a new one",
    "saturated:tools": "it calls too many tools to tell a new one",
    "saturated:transitions": "it takes too many different steps to tell a new one",
    "saturated:features": "its arguments have too many shapes to tell a new one",
    "saturated:chains": "it sends by too many ways to tell a new one",
}

EXPLANATIONS: Final = {
    "bundle": "another bundle came into force within the seven days before",
    "tool_definition": "the tool's definition changed within the seven days before",
}
"""What may be why, and is no excuse."""

CLOSED_AS: Final = {
    "expected": "Expected",
    "harmless": "Harmless",
    "misuse": "Misuse",
    "compromise": "Compromise",
    "false_alarm": "False alarm",
}
"""What a departure can turn out to be."""


def detector_words(detector: str | None) -> str:
    """Return what a detector finds; the name of one that this release does not know."""
    return "a departure" if detector is None else _DETECTORS.get(detector, detector)


def blind_words(what: str) -> str:
    """Return what a baseline cannot tell; as the record has it where this release does not know the word."""
    return _BLIND.get(what, what)


def _thousandths(milli: int) -> str:
    whole, rest = divmod(milli, 1000)
    return f"{whole:,}" if not rest else f"{whole:,}.{rest:03}".rstrip("0")


def measured_words(detector: str | None, value_milli: int, threshold_milli: int) -> str:
    """Return what was measured, and what it was measured against.

    Args:
        detector: Which detector.
        value_milli: What it measured, in thousandths.
        threshold_milli: What departs, in thousandths: above it, of an unusual hour below.
    """
    value, threshold = _thousandths(value_milli), _thousandths(threshold_milli)
    if detector is not None and detector.startswith("off_job_"):
        return "not as declared in the bundle that its decisions name"
    if detector in _NEVER:
        return "never before in the baseline"
    if detector == "unusual_hour":
        return f"{value_milli} of 1,000 calls of the baseline were around this hour, fewer than {threshold_milli}"
    if detector in _COUNTS:
        return f"{value}, and {threshold} would have been as usual"
    return f"{value}, above {threshold}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def baseline_words(life: BaselineLife) -> str:
    """Return how far a baseline is one, in numbers; that there is none is said as it is."""
    last = life.last
    if life.state == "none":
        return "nothing is known: it was forgotten by order, and no call was seen since"
    seen = f"{_many(last.calls, 'call')} on {_many(last.days, 'day')}"
    if life.state == "learning":
        missing = f"{_many(last.needed_calls, 'more call')} on {_many(last.needed_days, 'more day')}"
        return f"learned from {seen}; it takes {missing}, and until then nothing is found"
    return f"version {last.baseline_version}, of {seen} and {_many(last.tools, 'tool')}"
