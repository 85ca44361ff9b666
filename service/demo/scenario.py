"""The demonstration's day: who calls what, when, from where, and what must come of it.

A `Step` is one MCP message. Most go through the official SDK's client; those whose exact bytes are the point (other
spellings of a number, a duplicate key, a lying header) are sent as raw HTTP. What is expected of each step is written
down here and checked against the client's answer, the servers' own counters and the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

__all__ = ["AGENTS", "NETWORKS", "Agent", "Day", "Expectation", "Step", "steps"]

Expectation = Literal["allow", "deny", "ask", "kill"]

OFFICE: Final = "127.0.1.10"
HOSPITAL: Final = "127.0.2.10"
COFFEE_SHOP: Final = "127.0.3.10"

NETWORKS: Final = {
    "office": "127.0.1.0/24",
    "hospital": "127.0.2.0/24",
    "coffee-shop": "127.0.3.0/24",
}
"""Labels by address range. All of them are loopback addresses, and really the callers' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A caller with a credential of its own.

    Attributes:
        key: Short name of the credential in this scenario.
        agent: The agent.
        user: On whose behalf it acts.
        roles: Its roles.
        mfa: Whether a second factor was part of its login.
    """

    key: str
    agent: str
    user: str
    roles: tuple[str, ...] = ()
    mfa: bool = False


AGENTS: Final = (
    Agent(key="finance", agent="Finance-Bot", user="dana@example.com", roles=("finance",), mfa=True),
    Agent(key="finance-no-mfa", agent="Finance-Bot", user="eli@example.com", roles=("finance",)),
    Agent(key="support", agent="Support-Agent", user="sam@example.com", roles=("support",)),
    Agent(key="support-night", agent="Support-Agent", user="robin@example.com", roles=("support",)),
    Agent(key="clinic", agent="Clinic-Assistant", user="ines@example.com", roles=("clinical",)),
    Agent(key="clinic-intern", agent="Clinic-Assistant", user="joel@example.com", roles=("clinical",)),
    Agent(key="prices", agent="Price-Bot", user="mara@example.com", roles=("merchandiser",)),
    Agent(key="contractor", agent="Contractor-Bot", user="noor@example.com"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The simulated day.

    Attributes:
        start: Local midnight at which it begins; a Wednesday, so that the hours decide and not the weekend.
    """

    start: datetime

    def at(self, hour: int, minute: int = 0, *, days: int = 0) -> datetime:
        """Return a local time of the day, or of a later one."""
        return self.start + timedelta(days=days, hours=hour, minutes=minute)

    @property
    def end(self) -> datetime:
        """End of the reported period: six in the morning after."""
        return self.at(6, days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One message and what must come of it.

    Attributes:
        when: Local time.
        who: Key of the agent; empty for a token that nobody issued.
        server: Server behind the gateway.
        tool: Tool.
        arguments: JSON text of the arguments, sent as it is.
        expect: What the gateway must do.
        rule: Rule or reason that must be named, for all but allow.
        address: The caller's own address.
        title: What the step shows; empty for routine.
        body: Instead of a well-formed call: the raw message.
        headers: Headers that lie, instead of the right ones.
    """

    when: datetime
    who: str
    server: str
    tool: str
    arguments: str = "{}"
    expect: Expectation = "allow"
    rule: str | None = None
    address: str = OFFICE
    title: str = ""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bool:
        """Whether the exact bytes matter, so that the SDK's client cannot send it."""
        if self.body is not None or self.headers or not self.who:
            return True
        return json.dumps(json.loads(self.arguments)) != self.arguments


def _payroll(when: datetime, who: str, **expected: str) -> Step:
    return Step(when=when, who=who, server="finance", tool="Payroll-DB", arguments='{"month": "2026-10"}', **expected)  # type: ignore[arg-type]  # expect, rule, title


def _routine(day: Day) -> Iterator[Step]:
    """Yield a working day of ordinary calls, every few minutes."""
    kinds = (
        ("finance", "finance", "Payroll-DB", '{"month": "2026-10"}', OFFICE),
        ("finance", "finance", "refund_customer", '{"customer_id": "C-1042", "amount": 49.9}', OFFICE),
        ("clinic", "healthcare", "get_patient_records", '{"limit": 1}', HOSPITAL),
        ("support", "support", "export_customers", '{"limit": 20}', OFFICE),
        ("prices", "retail", "update_price", '{"sku": "laptop", "price": 1249.5}', OFFICE),
        ("clinic", "healthcare", "get_patient_records", '{"limit": 3}', HOSPITAL),
    )
    when = day.at(9, 4)
    number = 0
    while when < day.at(17, 50):
        who, server, tool, arguments, address = kinds[number % len(kinds)]
        yield Step(when=when, who=who, server=server, tool=tool, arguments=arguments, address=address)
        number += 1
        when += timedelta(minutes=2 + number % 3)


def _finance(day: Day) -> Iterator[Step]:
    yield _payroll(day.at(10), "finance", title="Finance-Bot at 10:00 with a second factor")
    yield _payroll(
        day.at(10, 5),
        "finance-no-mfa",
        expect="deny",
        rule="finance-mfa-required",
        title="Finance-Bot at 10:05 without a second factor",
    )
    yield _payroll(
        day.at(3, days=1),
        "finance",
        expect="deny",
        rule="finance-business-hours",
        title="Finance-Bot at 03:00",
    )
    yield Step(
        when=day.at(12),
        who="finance",
        server="finance",
        tool="transfer_funds",
        arguments='{"account": "DE02-2105", "amount": 9000}',
        expect="ask",
        title="a transfer, which a person must approve",
    )
    yield Step(
        when=day.at(12, 10),
        who="finance",
        server="finance",
        tool="refund_customer",
        arguments='{"customer_id": "C-1042", "amount": 5000}',
        expect="deny",
        rule="refund-limit",
        title="a refund of 5,000.00",
    )


def _support(day: Day) -> Iterator[Step]:
    small, bulk = '{"limit": 20}', '{"limit": 5000}'

    def export(when: datetime, who: str, arguments: str, address: str, title: str, **expected: str) -> Step:
        return Step(
            when=when,
            who=who,
            server="support",
            tool="export_customers",
            arguments=arguments,
            address=address,
            title=title,
            **expected,  # type: ignore[arg-type]  # expect and rule
        )

    yield export(day.at(11), "support", bulk, OFFICE, "support exports in bulk, in the office by day")
    yield export(day.at(14), "support", small, COFFEE_SHOP, "support in a coffee shop by day, a small export")
    yield export(day.at(19, 30), "support", small, OFFICE, "support after hours, in the office, a small export")
    yield export(
        day.at(22, 10),
        "support-night",
        bulk,
        COFFEE_SHOP,
        "all three at once: after hours, coffee shop, bulk",
        expect="kill",
        rule="support-exfiltration-4d",
    )
    yield export(
        day.at(22, 12),
        "support-night",
        small,
        OFFICE,
        "the same agent afterwards: its session has ended",
        expect="deny",
        rule="session_ended",
    )


def _healthcare(day: Day) -> Iterator[Step]:
    def read(when: datetime, limit: int, title: str, **expected: str) -> Step:
        return Step(
            when=when,
            who="clinic-intern",
            server="healthcare",
            tool="get_patient_records",
            arguments=f'{{"limit": {limit}}}',
            address=HOSPITAL,
            title=title,
            **expected,  # type: ignore[arg-type]  # expect and rule
        )

    yield read(day.at(15), 1, "one patient record")
    yield read(
        day.at(15, 2),
        10_000,
        "10,000 patient records instead of one",
        expect="kill",
        rule="phi-minimum-necessary",
    )
    yield read(day.at(15, 3), 1, "one record, but the session has ended", expect="deny", rule="session_ended")


_PRICE_SPELLINGS: Final = ("{0}.00", '"{0}.00"', "{0}e0", "{0}.0")


def _retail(day: Day) -> Iterator[Step]:
    def price(when: datetime, arguments: str, title: str, **expected: str) -> Step:
        return Step(
            when=when,
            who="prices",
            server="retail",
            tool="update_price",
            arguments=arguments,
            title=title,
            **expected,  # type: ignore[arg-type]  # expect and rule
        )

    minute = 0
    for amount, expected in ((1, {"expect": "deny", "rule": "price-floor"}), (999, {})):
        flat = [f'{{"sku":"laptop","price":{spelling.format(amount)}}}' for spelling in _PRICE_SPELLINGS]
        nested = f'{{"item":{{"sku":"laptop","price":{amount}.00}}}}'
        for arguments in (*flat, nested):
            yield price(day.at(11, 20 + minute), arguments, f"a laptop's price as {arguments}", **expected)
            minute += 1
    yield price(
        day.at(11, 40),
        '{"sku":"laptop","price":999.00,"price":1.00}',
        "two prices under one key",
        expect="deny",
        rule="duplicate_key",
    )


def _strange(day: Day) -> Iterator[Step]:
    def odd(
        minute: int, rule: str, title: str, who: str = "finance", body: bytes | None = None, name: str = ""
    ) -> Step:
        return Step(
            when=day.at(13, minute),
            who=who,
            server="finance",
            tool="refund_customer",
            arguments='{"customer_id": "C-1042", "amount": 10}',
            expect="deny",
            rule=rule,
            title=title,
            body=body,
            headers={"Mcp-Name": name} if name else {},
        )

    yield odd(0, "malformed", "a message that is not JSON", body=b'{"jsonrpc":"2.0","id":1,"method":')
    yield odd(1, "header_mismatch", "a header that names another tool", name="harmless_tool")
    yield odd(2, "unauthenticated", "a token that nobody issued", who="")
    yield odd(3, "no_permit", "an agent whom no rule permits", who="contractor")


def steps(day: Day) -> list[Step]:
    """Return the day's messages in the order of their time."""
    parts = (_routine, _finance, _support, _healthcare, _retail, _strange)
    return sorted((step for part in parts for step in part(day)), key=lambda step: step.when)
