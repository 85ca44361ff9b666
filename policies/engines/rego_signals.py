"""Whether a Rego bundle reads signals, told from its text.

Rego has no schema: a policy that reads ``input.signals`` of a request without them reads *undefined*, and a rule of
``denies`` that looks for a finding there denies nothing. Such a request is refused instead (invariant 7), so that it
has to be known which bundles read them: those that name ``input.signals``, and those that use ``input`` as a whole, or
a member of it that is computed, and have the word in some text or in their data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.engines.rego_ast import Module, Path
from policies.engines.rego_walk import mentions
from policies.signals import SIGNALS

__all__ = ["reads_signals"]


def _input_paths(modules: Sequence[Module]) -> Iterator[Path]:
    """Return what is read of the input, each as a path from ``input`` on; imports are resolved."""
    for module in modules:
        yield from (path for path in module.imports.values() if path[0] == "input")
        for rule in module.rules:
            for mention in mentions(module, rule):
                path = mention.path
                if path and path[0] == "input" and mention.kind != "number":
                    yield path
                elif path and path[0] in module.imports and not mention.local:
                    yield (*module.imports[str(path[0])], *path[1:])


def reads_signals(modules: Sequence[Module], data: str) -> bool:
    """Return whether policies read signals, or may.

    Args:
        modules: The bundle's policy files.
        data: Its document ``data``, as JSON text.
    """
    read = [path for path in _input_paths(modules) if path[0] == "input"]
    if any(path[1:2] == (SIGNALS,) for path in read):
        return True
    as_a_whole = any(len(path) == 1 or path[1] is None for path in read)
    return as_a_whole and (SIGNALS in data or any(SIGNALS in module.text for module in modules))
