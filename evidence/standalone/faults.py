"""What can be wrong with a pack, by exit status: bad, malformed, not trusted and not checkable are different things."""

from __future__ import annotations

__all__ = ["FailedError", "Fault", "MalformedError", "UncheckedError", "UntrustedError", "demand"]


class Fault(Exception):  # noqa: N818  # the family; its members are the errors
    """Something is wrong; the message is one sentence."""

    status = 1


class FailedError(Fault):
    """A proof, signature or digest does not hold."""


class MalformedError(Fault):
    """Something cannot be read."""

    status = 2


class UntrustedError(Fault):
    """It is signed by others than the trust policy demands, or judged by a catalogue that nobody accepted."""

    status = 3


class UncheckedError(Fault):
    """What is needed to check it is not at hand."""

    status = 4


def demand(holds: bool, sentence: str, kind: type[Fault] = MalformedError) -> None:  # noqa: FBT001  # reads as prose
    """Raise an error of a kind unless something holds."""
    if not holds:
        raise kind(sentence)
