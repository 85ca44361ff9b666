"""Inspection of messages: calls, prompts, what a server asks. What is found is a fact for the policy that judges them.

A `enforcement.signals.SignalSource`. Of a message that nobody inspects there are no signals of inspection.
"""

from __future__ import annotations

from typing import Final

from enforcement.config_inspection import Inspecting, InspectionSettings, inspecting_of
from enforcement.drafts import Case
from enforcement.looking import Inspector, look_through
from enforcement.offload import off_loop
from policies.signals import Signals

__all__ = ["MessageInspection"]

_TOOL_METHOD: Final = "tools/call"
_FILLS: Final = frozenset({"inspected", "inspector", "findings", "finding_count"})


class MessageInspection:
    """Looks through messages before they are judged. Owned by the event loop."""

    def __init__(self, inspector: Inspector, settings: InspectionSettings) -> None:
        """Take the parts.

        Args:
            inspector: Finds things.
            settings: What is looked for.
        """
        self._inspector = inspector
        self._settings = settings

    @property
    def name(self) -> str:
        """``inspection``."""
        return "inspection"

    @property
    def fills(self) -> frozenset[str]:
        """What it says of a message."""
        return _FILLS

    def concerns(self, case: Case) -> bool:
        """Whether the message is inspected."""
        return self._inspecting(case) is not None

    async def signals(self, case: Case) -> Signals:
        """Return what was found in a message."""
        inspecting = self._inspecting(case)
        if inspecting is None:
            return Signals()
        body = case.inbound.body
        message = case.message
        assert message is not None  # or it would not be inspected
        sent = message.direction == "client" and case.identity is not None
        look = await off_loop(
            len(body),
            look_through,
            self._inspector,
            body,
            kinds=inspecting.kinds,
            max_bytes=inspecting.max_bytes,
            roles=case.identity.roles if sent and case.identity is not None else (),
            tool=(message.name or "") if sent and message.method == _TOOL_METHOD else "",
        )
        return look.signals

    def _inspecting(self, case: Case) -> Inspecting | None:
        if case.message is None:
            return None
        return inspecting_of(self._settings, case.server, case.message.method, case.message.name)
