"""Orders of people about baselines: accept a candidate, or forget a baseline. Pure.

A person gives them at the service (`service.drift`), which records them; a gateway asks for those that are about its
baselines and carries each out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, runtime_checkable

import msgspec

from enforcement.ports import Unavailable

__all__ = ["BaselineOrder", "BaselineOrders"]


class BaselineOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a person ordered.

    Attributes:
        order_id: Record id of the order.
        action: What is to be done.
        agent: Whose baseline.
        digest: Of the candidate that is accepted; empty for a reset.
    """

    order_id: Annotated[str, msgspec.Meta(max_length=64)]
    action: Literal["accept_ordered", "reset_ordered"]
    agent: Annotated[str, msgspec.Meta(max_length=128)]
    digest: Annotated[str, msgspec.Meta(max_length=64)] = ""


@runtime_checkable
class BaselineOrders(Protocol):
    """Hands out orders about the baselines of the gateway that asks."""

    async def baseline_orders(self) -> Sequence[BaselineOrder] | Unavailable:
        """Return the latest orders, oldest first, those that were carried out among them.

        Nothing is raised but cancellation.
        """
        ...
