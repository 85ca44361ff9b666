"""A Rego bundle as its engine takes it: modules, the package that decides, data, parameters.

The same reading serves our own engine and a stock OPA: `opa_layout` returns what an OPA would have to load to decide as
we do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from ledger.canonical import parse_json
from ledger.errors import MalformedError, PolicySyntaxError
from policies.boundaries import Boundaries, BoundaryFacts, boundary_facts, read_boundaries
from policies.bundles import Bundle
from policies.engines.rego_ast import Module, parse_module
from policies.engines.rego_checks import check_modules, check_old_text
from policies.engines.rego_names import package_path
from policies.engines.rego_requests import (
    InexactNumberError,
    InputRefusedError,
    RegoValue,
    exact_document,
    input_document,
)
from policies.engines.rego_rules import DecisionRules, decision_rules
from policies.engines.rego_signals import reads_signals
from policies.model import DecisionRequest
from policies.parameters import ParameterSet, read_parameters
from policies.signals import SIGNALS
from policies.windows import WindowSet, read_windows

__all__ = ["OPALayout", "RegoSource", "opa_layout", "read_source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegoSource:
    """A Rego bundle, read and checked.

    Attributes:
        version: Rego version, 0 or 1.
        modules: Its policy files, in bundle order.
        rules: What decides.
        data: The document ``data``, as JSON text.
        parameters: The bundle's declarations of parameters.
        windows: Its declarations of behaviour windows.
        boundaries: Its descriptions of tools; None if it has none.
        signalled: Its policies read signals, or may.
    """

    version: int
    modules: tuple[Module, ...]
    rules: DecisionRules
    data: str
    parameters: ParameterSet
    windows: WindowSet
    boundaries: Boundaries | None
    signalled: bool

    def input_document(self, request: DecisionRequest, boundary: BoundaryFacts | None = None) -> dict[str, RegoValue]:
        """Return what the bundle's policies read as ``input`` of a request.

        Args:
            request: The request.
            boundary: What the bundle's boundaries say of it; None if nobody has asked them yet.

        Raises:
            InputRefusedError: It cannot be put to Rego exactly, or lacks signals that the bundle reads.
        """
        # Without them a rule of `denies` that looks for a finding would be undefined, and deny nothing.
        if self.signalled and request.signals is UNSET:
            raise InputRefusedError("request_error", SIGNALS)
        facts = boundary_facts(self.boundaries, request) if boundary is None else boundary
        return input_document(self.parameters, self.windows, request, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OPALayout:
    """What a stock OPA loads.

    Attributes:
        rego_version: 0 or 1, for its ``.manifest``.
        modules: Path → text of each policy file, its package in it.
        data: The document ``data``.
        package: The package that decides, with dots: ``POST /v1/data/<package, with slashes>``.
    """

    rego_version: int
    modules: Mapping[str, str]
    data: Mapping[str, RegoValue]
    package: str


def _data(bundle: Bundle) -> dict[str, RegoValue]:
    path = bundle.manifest.data
    if path is None:
        return {}
    try:
        document = exact_document(parse_json(bundle.files[path]))
    except (MalformedError, InexactNumberError) as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise PolicySyntaxError(f"{path}: the document data is a JSON object")
    return document


def _check_apart(path: str | None, data: Mapping[str, RegoValue], modules: Sequence[Module]) -> None:
    """Refuse data where a package has its rules: which of the two a policy read would be the engine's choice."""
    for module in modules:
        node: RegoValue = dict(data)
        for name in module.package:
            if not isinstance(node, dict):
                raise PolicySyntaxError(f"{path}: a value where {module.file} has its package")
            if name not in node:
                break
            node = node[name]
        else:
            raise PolicySyntaxError(f"{path}: values where {module.file} has its rules")


def _modules(bundle: Bundle) -> tuple[Module, ...]:
    manifest = bundle.manifest
    if manifest.package is not None:
        package_path(manifest.package)
    modules = tuple(
        parse_module(path, bundle.text(path), version=manifest.rego_version, package=manifest.package)
        for path in manifest.policies
    )
    if manifest.rego_version == 0:
        for module in modules:
            check_old_text(module)
    check_modules(modules)
    return modules


def read_source(bundle: Bundle) -> RegoSource:
    """Read a Rego bundle and check all of it.

    Raises:
        PolicySyntaxError: It cannot be used; the message names file and place.
    """
    manifest = bundle.manifest
    for name, member in (("schema", manifest.schema), ("entities", manifest.entities)):
        if member is not None:
            raise PolicySyntaxError(f"a Rego bundle has no {name}; reference data is in its data")
    modules = _modules(bundle)
    package = modules[0].package if manifest.package is None else package_path(manifest.package)
    data = _data(bundle)
    _check_apart(manifest.data, data, modules)
    written = json.dumps(data)
    return RegoSource(
        version=manifest.rego_version,
        modules=modules,
        rules=decision_rules(modules, package),
        data=written,
        parameters=read_parameters(bundle),
        windows=read_windows(bundle),
        boundaries=read_boundaries(bundle),
        signalled=reads_signals(modules, written),
    )


def opa_layout(bundle: Bundle) -> OPALayout:
    """Return what a stock OPA loads to decide as our engine does, given `rego_requests.rego_input` documents.

    Raises:
        PolicySyntaxError: The bundle cannot be used.
    """
    source = read_source(bundle)
    return OPALayout(
        rego_version=source.version,
        modules={module.file: module.text for module in source.modules},
        data=_data(bundle),
        package=source.rules.package,
    )
