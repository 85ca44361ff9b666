"""Where Cedar policies read signals, told from their text; for the linter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cedarpy import pst

from policies.engines.cedar_policies import nodes
from policies.signal_reads import ALL_SIGNALS, SignalRead
from policies.signals import SIGNALS

__all__ = ["signals_read"]

_SIGNALS: Final = pst.GetAttr(base=pst.Var(name="context"), attr=SIGNALS)


def signals_read(policies: Iterable[tuple[str, object]]) -> Iterator[SignalRead]:
    """Yield where policies read signals.

    Args:
        policies: For each its place and its conditions.
    """
    for place, conditions in policies:
        texts: dict[str, list[str]] = {}
        whole = 0
        for node in nodes(conditions):
            named = _names(node)
            # The signals themselves are a node below each name that is read of them.
            whole += (node == _SIGNALS) - bool(named)
            for name in named:
                texts.setdefault(name, [])
            if isinstance(node, pst.BinaryOp):
                for one, other in ((node.left, node.right), (node.right, node.left)):
                    if isinstance(one, pst.GetAttr) and one.base == _SIGNALS:
                        texts.setdefault(one.attr, []).extend(_literals(other))
        if whole:
            texts.setdefault(ALL_SIGNALS, [])
        for name, said in texts.items():
            yield SignalRead(place=place, name=name, texts=tuple(dict.fromkeys(said)))


def _names(node: object) -> tuple[str, ...]:
    if isinstance(node, pst.GetAttr) and node.base == _SIGNALS:
        return (node.attr,)
    if isinstance(node, pst.HasAttr) and node.base == _SIGNALS:
        return tuple(node.attrs)
    return ()


def _literals(node: object) -> Iterator[str]:
    if isinstance(node, pst.StringLit):
        yield node.value
    elif isinstance(node, pst.Set):
        yield from (element.value for element in node.elements if isinstance(element, pst.StringLit))
