"""No record of an enforcer may be sequenced behind the retirement of the key that signed it."""

from __future__ import annotations

import pytest

from ledger.errors import StorageError
from service.problems import ForbiddenError
from service.retirements import Retirements


def test_what_is_admitted_while_nobody_is_retired_passes():
    retirements = Retirements()
    retirements.check("gateway-1", retirements.ticket("gateway-1"))


def test_nothing_is_admitted_while_a_retirement_is_recorded():
    retirements = Retirements()
    before = retirements.ticket("gateway-1")
    with retirements.retiring("gateway-1"):
        with pytest.raises(ForbiddenError, match="being retired"):
            retirements.ticket("gateway-1")
        with pytest.raises(ForbiddenError, match="being retired"):
            retirements.check("gateway-1", before)


def test_what_was_admitted_before_a_retirement_does_not_enter_after_it_though_the_id_is_introduced_again():
    # The attack: signed by the old key, looked at before it ended, queued once another key counts for the id.
    retirements = Retirements()
    before = retirements.ticket("gateway-1")
    with retirements.retiring("gateway-1"):
        pass
    with pytest.raises(ForbiddenError, match="was retired"):
        retirements.check("gateway-1", before)
    retirements.check("gateway-1", retirements.ticket("gateway-1"))


def test_another_enforcer_is_not_held_up():
    retirements = Retirements()
    before = retirements.ticket("gateway-2")
    with retirements.retiring("gateway-1"):
        retirements.check("gateway-2", before)


def test_a_retirement_of_which_nobody_knows_whether_it_was_recorded_keeps_the_enforcer_out():
    retirements = Retirements()
    with pytest.raises(StorageError), retirements.retiring("gateway-1"):
        raise StorageError("the database went away")
    with pytest.raises(ForbiddenError):
        retirements.ticket("gateway-1")
    with retirements.retiring("gateway-1"):
        pass
    retirements.ticket("gateway-1")
