"""Whoever can write rows of the database, but has no key, says nothing in people's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.bodies import Approval, Body, BundleEvent, Containment, ModeEvent
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.bodies_inventory import InventoryEvent
from ledger.bodies_tools import ToolEvent
from ledger.errors import SignatureInvalidError
from service.wiring.services import Services
from tests.support.forgery import forge
from tests.support.service import RunningService, start_service

CHANGE = "01990000-0000-7000-8000-000000000001"
SAID: dict[str, Any] = {"actor": "4" * 32, "actor_role": "approver"}
WORDS: dict[str, Body] = {
    "modes": ModeEvent(change_id=CHANGE, action="proposed", server="crm", mode="observe", expires_ms=2**52, **SAID),
    "inventory": InventoryEvent(action="confirmed", server="crm", tool="refund", tags=("read",), **SAID),
    "behaviour": BaselineEvent(action="accept_ordered", agent="bot", enforcer="gateway-1", digest="c7" * 32, **SAID),
    "departures": Drift(action="closed", drift_id=CHANGE, disposition="expected", **SAID),
    "tools": ToolEvent(action="approved", server="crm", tool="refund", digest="c7" * 32, **SAID),
    "approvals": Approval(approval_id=CHANGE, decision_id=CHANGE, action="granted", binding="c7" * 32, **SAID),
    "containments": Containment(action="released", containment_id=CHANGE, **SAID),
    "bundles": BundleEvent(action="activated", name="loose", revision="c7" * 32, engine="cedar", **SAID),
    "canaries": BundleEvent(action="canary_started", name="loose", revision="c7" * 32, engine="cedar", **SAID),
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path) as running:
        yield running


def read(services: Services, book: str) -> object:
    looks: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "modes": services.modes.all,
        "inventory": services.inventory.look,
        "behaviour": lambda: services.behaviour.orders("gateway-1"),
        "departures": services.behaviour.drifts,
        "tools": services.tools.verdicts,
        "approvals": services.approvals.all,
        "containments": services.containments.state,
        "bundles": services.bundles.history,
        "canaries": services.bundles.state,
    }
    return asyncio.run(looks[book]())


@pytest.mark.parametrize("book", WORDS)
def test_what_the_service_did_not_sign_nobody_said(service: RunningService, book: str) -> None:
    read(service.services, book)
    forge(service, WORDS[book])
    with pytest.raises(SignatureInvalidError, match="not signed by a key of the service"):
        read(service.services, book)
