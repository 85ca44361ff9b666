"""A whole bundle out of a description: boundaries, rules, tests, and a report of what could not be taken.

Pure: bytes in, bytes out, the same for the same. What reads and writes files is ``service.cli.generate``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

from ledger.canonical import JSONValue
from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import BUNDLE_FORMAT, MANIFEST_PATH, bundle_from_files
from policies.generate.boundary import BoundaryFile, make_boundary
from policies.generate.cases import make_cases
from policies.generate.documents import read_document
from policies.generate.encoding import json_bytes
from policies.generate.mcp_tools import read_mcp_tools
from policies.generate.model import Description, JSONObject
from policies.generate.openapi import read_openapi
from policies.generate.postman import read_postman
from policies.generate.report import Report
from policies.generate.rules import cedar_files, rego_files

__all__ = ["BOUNDARIES_PATH", "ENGINES", "FORMS", "MADE_ANEW", "Generated", "describe", "generate"]

EngineName: TypeAlias = Literal["cedar", "rego"]

FORMS: Final[Mapping[str, Callable[[JSONValue], Description]]] = {
    "mcp": read_mcp_tools,
    "openapi": read_openapi,
    "postman": read_postman,
}
"""Readers by the name of the form that they read."""

ENGINES: Final[tuple[EngineName, ...]] = ("cedar", "rego")
BOUNDARIES_PATH: Final = "boundaries.json"
MADE_ANEW: Final = ("README.md", BOUNDARIES_PATH, "data.json", "entities.json")
"""Files that a newer description replaces, and the tests; rules, schema and manifest belong to whoever edits them."""

_SERVER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated bundle.

    Attributes:
        files: Path → bytes; a sound bundle, its manifest among them.
        boundary: Its boundaries.
        report: What was taken and what was not.
    """

    files: Mapping[str, bytes]
    boundary: BoundaryFile
    report: Report


def describe(form: str, data: bytes) -> Description:
    """Return what a document says of its operations.

    Args:
        form: One of `FORMS`.
        data: The document.

    Raises:
        MalformedError: Neither JSON nor YAML that can be read in one way.
        PolicySyntaxError: Not a document of that form.
    """
    document = read_document(data)
    try:
        return FORMS[form](document)
    except RecursionError as error:
        raise MalformedError("a document that is nested too deep") from error


def _manifest(name: str, engine: EngineName, description: Description) -> JSONObject:
    shared: JSONObject = {
        "format": BUNDLE_FORMAT,
        "name": name,
        "engine": engine,
        "description": f"Generated from {description.kind}.",
        "boundaries": BOUNDARIES_PATH,
    }
    if engine == "cedar":
        return {**shared, "policies": ["policy.cedar"], "schema": "schema.cedarschema", "entities": "entities.json"}
    return {**shared, "policies": ["policy.rego"], "package": "generated", "data": "data.json"}


def _chosen(description: Description, only: tuple[str, ...]) -> Description:
    if not only:
        return description
    taken = tuple(item for item in description.operations if any(fnmatchcase(item.tool, glob) for glob in only))
    return replace(description, operations=taken)


def generate(
    form: str, data: bytes, *, server: str, engine: EngineName = "cedar", only: tuple[str, ...] = ()
) -> Generated:
    """Return the bundle that a document makes.

    Args:
        form: One of `FORMS`.
        data: The document.
        server: Name of the server, as the gateway knows it.
        engine: For which engine.
        only: Globs of tool names; none for all.

    Raises:
        MalformedError: Neither JSON nor YAML that can be read in one way.
        PolicySyntaxError: Not a document of that form, or one without an operation that can be used.
    """
    if not _SERVER.fullmatch(server):
        raise PolicySyntaxError(f"not the name of a server: {server[:80]!a}")
    description = _chosen(describe(form, data), only)
    digest = hashlib.sha256(data).hexdigest()
    boundary = make_boundary(description, server=server, digest=digest)
    tests = make_cases(server, description, boundary.operations, boundary.compiled)
    files = (cedar_files if engine == "cedar" else rego_files)(server, boundary.operations)
    files |= {BOUNDARIES_PATH: boundary.data, **tests}
    files[MANIFEST_PATH] = json_bytes(_manifest(server, engine, description), indent=2)
    report = Report.of(description, boundary.operations, server=server, digest=digest)
    files["README.md"] = report.text().encode()
    bundle_from_files(files)  # what is made is a bundle, or is not made
    return Generated(files, boundary, report)
