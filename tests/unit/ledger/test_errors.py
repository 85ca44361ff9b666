"""The error tree: one root, a sentence each, and nothing between "bad" and "could not check"."""

from __future__ import annotations

import inspect
import re

import pytest

from ledger import errors
from ledger.errors import (
    LedgerError,
    MalformedError,
    RootMismatchError,
    SignatureError,
    SignatureInvalidError,
    SignatureUncheckedError,
    TallystickError,
    VerificationError,
)

_CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, BaseException) and item.__module__ == errors.__name__
}


@pytest.mark.parametrize("name", _CLASSES)
def test_an_error_descends_from_the_root_is_exported_and_has_a_sentence(name) -> None:
    error = _CLASSES[name]
    assert issubclass(error, TallystickError)
    assert name in errors.__all__
    assert name.endswith("Error")
    # Its own docstring: an inherited one says what another class means.
    assert re.match(r"[A-Z].+[.!]", error.__dict__["__doc__"] or "")


def test_nothing_else_is_exported() -> None:
    assert set(errors.__all__) == set(_CLASSES)


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawn: dict[str, str | None] = {}
    ancestors: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").split("\n"):
        names = re.findall(r"[A-Z]\w+Error", line)
        if not re.match(r"\s{4}[│├└ ]*[─ ]*[A-Z]\w+Error", line):
            continue
        column = line.index(names[0])
        while ancestors and ancestors[-1][0] >= column:
            ancestors.pop()
        parent = ancestors[-1][1] if ancestors else None
        drawn[names[0]] = parent
        ancestors.append((column, names[0]))
        # "A ── B, C": B and C stand below A; "├─ B, C" without a head does not occur.
        drawn |= dict.fromkeys(names[1:], names[0])
    real = {
        name: (base.__name__ if (base := error.__base__) is not Exception else None) for name, error in _CLASSES.items()
    }
    assert drawn == real


def test_bad_and_could_not_check_are_different_errors_and_neither_is_the_other() -> None:
    assert issubclass(SignatureInvalidError, SignatureError)
    assert issubclass(SignatureUncheckedError, SignatureError)
    assert not issubclass(SignatureInvalidError, SignatureUncheckedError)
    assert not issubclass(SignatureUncheckedError, SignatureInvalidError)


def test_malformed_is_no_verdict_on_what_well_formed_bytes_prove() -> None:
    assert not issubclass(MalformedError, VerificationError)
    assert issubclass(MalformedError, LedgerError)


def test_a_root_mismatch_carries_and_prints_both_roots() -> None:
    error = RootMismatchError("leaf 3 is not in the tree", expected=b"\x01" * 32, calculated=b"\x02" * 32)
    assert (error.expected, error.calculated) == (b"\x01" * 32, b"\x02" * 32)
    assert "01" * 32 in str(error)
    assert "02" * 32 in str(error)
