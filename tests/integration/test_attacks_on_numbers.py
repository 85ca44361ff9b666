"""Attacks by amounts: each call is small or looks right. Directly they work; through the gateway, what counts does not.

Every attack is one function that an agent plays twice: against the servers themselves, whose own state then shows the
harm, and through a gateway under a shipped bundle, whose story `tallystick session` tells.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer

from tests.support.attacks import Agent, Who, directly, in_order, precinct

# --- bulk export in many small calls


class Customers:
    """A customer database that exports what it is asked for, page by page."""

    ROWS = 5000

    def __init__(self) -> None:
        self.exported = 0
        self.calls = 0
        self.server = MCPServer("crm")
        self.server.tool()(self.export_customers)

    async def export_customers(self, offset: int, limit: int) -> str:
        """Export customers."""
        rows = range(offset, min(offset + limit, self.ROWS))
        self.calls += 1
        self.exported += len(rows)
        return json.dumps([{"id": row} for row in rows])


async def drain_customers(agent: Agent) -> None:
    """Take the whole table, 250 rows at a time: no single call is more than anybody may take."""
    await agent.look_around()
    for offset in range(0, Customers.ROWS, 250):
        await agent.call("crm", "export_customers", offset=offset, limit=250)


def test_bulk_export_in_many_small_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        open_database = Customers()
        async with directly({"crm": open_database.server}) as agent:
            await drain_customers(agent)
        assert open_database.exported == Customers.ROWS

        guarded = Customers()
        async with precinct(tmp_path, "bulk-export") as place:
            async with place.guarded({"crm": guarded.server}, [Who(agent="Support-Bot", role="support")]) as (agent,):
                await drain_customers(agent)
            # Eight calls make a user's day full, and the server heard of no other.
            assert (guarded.calls, guarded.exported) == (8, 2000)
            assert {(one.reason, one.rule) for one in agent.refused} == {("policy", "export-day")}
            assert len(agent.refused) == 12
            allowed = "crm/export_customers: ALLOW"
            denied = "crm/export_customers: DENY"
            story = place.story("Support-Bot")
            in_order(story, *[allowed] * 8, *[denied, "export-day"] * 12)
            assert "bulk-export" in story

    asyncio.run(scenario())


# --- refund draining


class Till:
    """A payment server with what is left in it."""

    def __init__(self) -> None:
        self.left = 10_000.0
        self.paid: list[float] = []
        self.server = MCPServer("finance")
        self.server.tool()(self.refund)

    async def refund(self, customer: str, amount: float) -> str:
        """Refund a customer."""
        self.left -= amount
        self.paid.append(amount)
        return f"refunded {amount} to {customer}"


async def drain_till(agent: Agent) -> None:
    """Refund the same accomplice again and again, well below what anybody would look at."""
    await agent.look_around()
    for _ in range(100):
        await agent.call("finance", "refund", customer="C-1", amount=100.0)


async def drain_till_at_once(agent: Agent) -> None:
    """The same, all calls at once: each sees the room that is left before the others have taken it."""
    await agent.look_around()
    await asyncio.gather(*(agent.call("finance", "refund", customer="C-1", amount=100.0) for _ in range(30)))


def test_refund_draining(tmp_path: Path) -> None:
    async def scenario() -> None:
        open_till = Till()
        async with directly({"finance": open_till.server}) as agent:
            await drain_till(agent)
        assert open_till.left == 0

        guarded = Till()
        async with precinct(tmp_path, "cumulative-caps") as place:
            async with place.guarded({"finance": guarded.server}, [Who(agent="Finance-Bot", role="finance")]) as (
                agent,
            ):
                await drain_till(agent)
            assert guarded.paid == [100.0] * 10  # the cap of a session
            assert {one.rule for one in agent.refused} <= {"cap-session", "cap-day"}
            assert agent.refused[0].rule == "cap-session"
            assert len(agent.refused) == 90
            in_order(place.story("Finance-Bot"), *["finance/refund: ALLOW"] * 10, "finance/refund: DENY", "cap-session")

    asyncio.run(scenario())


def test_refund_draining_by_calls_that_are_under_way_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        open_till = Till()
        async with directly({"finance": open_till.server}) as agent:
            await drain_till_at_once(agent)
        assert open_till.left == 7000

        guarded = Till()
        async with precinct(tmp_path, "cumulative-caps") as place:
            async with place.guarded({"finance": guarded.server}, [Who(agent="Finance-Bot", role="finance")]) as (
                agent,
            ):
                await drain_till_at_once(agent)
            # How calls overlap is the machine's affair; that they do not pay more than the cap together is not.
            assert 1 <= len(guarded.paid) <= 10
            assert {one.rule for one in agent.refused} <= {"cap-session", "cap-day", "cap-agent"}
            assert len(agent.refused) == 30 - len(guarded.paid)

    asyncio.run(scenario())


# --- price tampering


class Shop:
    """A shop that takes what it is told for a price, as one item or as a list."""

    def __init__(self) -> None:
        self.prices = {"laptop": 1299.0}
        self.server = MCPServer("retail")
        self.server.tool()(self.update_price)

    async def update_price(
        self,
        sku: str = "laptop",
        price: float | None = None,
        item: dict[str, Any] | None = None,
        items: list[dict[str, Any]] | None = None,
    ) -> str:
        """Set prices."""
        for one in [{"sku": sku, "price": price}, item or {}, *(items or [])]:
            if one.get("price") is not None:
                self.prices[str(one["sku"])] = float(one["price"])
        return json.dumps(self.prices)


CHEAP: tuple[dict[str, Any], ...] = (
    {"sku": "laptop", "price": 1.00},
    {"sku": "laptop", "price": "1.00"},
    {"item": {"sku": "laptop", "price": 1}},
    {"items": [{"sku": "laptop", "price": 1299.0}, {"sku": "laptop", "price": 1}]},
    {"sku": "laptop", "price": 1299.0, "item": {"sku": "laptop", "price": 1}},
    {"sku": "laptop", "price": -1299.0},
)
"""Ways to say that a laptop costs next to nothing."""


def test_price_tampering(tmp_path: Path) -> None:
    async def scenario() -> None:
        for way in CHEAP:
            open_shop = Shop()
            async with directly({"retail": open_shop.server}) as agent:
                await agent.call("retail", "update_price", **way)
            assert open_shop.prices["laptop"] <= 1, way

        guarded = Shop()
        async with precinct(tmp_path, "amount-bounds") as place:
            async with place.guarded({"retail": guarded.server}, [Who(agent="Price-Bot", role="merchandiser")]) as (
                agent,
            ):
                for way in CHEAP:
                    await agent.call("retail", "update_price", **way)
                assert guarded.prices == {"laptop": 1299.0}
                await agent.call("retail", "update_price", sku="laptop", price=999.0)
            assert guarded.prices == {"laptop": 999.0}
            assert [one.reason for one in agent.refused] == ["policy"] * len(CHEAP)
            assert all("price" in str(one.rule) for one in agent.refused)
            denied = ["retail/update_price: DENY", "price-"] * len(CHEAP)
            in_order(place.story("Price-Bot"), *denied, "retail/update_price: ALLOW", "completed")

    asyncio.run(scenario())
