"""The composition root: nothing else names a concrete store, anchor, signer, witness or engine.

`build_services` makes every part from settings and keys; `Services.start` and `Services.stop` run them in order. There
are no module-level engines or clients: two services in one process do not know of each other.
"""

from service.wiring.assembly import build_services
from service.wiring.engines import (
    ENGINE_KINDS,
    explainer_of,
    formatter_of,
    linter_of,
    make_core,
    make_evaluator,
    make_gateway,
    make_gateway_evaluator,
    make_opa_server,
)
from service.wiring.installations import (
    AuditParts,
    LogSummary,
    directory_sources,
    open_audit_sources,
    open_database_copy,
    open_for_audit,
    open_for_rebuild,
    summarise_logs,
)
from service.wiring.outsiders import WitnessParts, make_witness, witness_vkey
from service.wiring.places import directory_tiles, make_anchor, make_tiles
from service.wiring.services import Services, SharedParts, open_shared
from service.wiring.signing import bundle_signer, fetch_public_key, open_signer

__all__ = [
    "ENGINE_KINDS",
    "AuditParts",
    "LogSummary",
    "Services",
    "SharedParts",
    "WitnessParts",
    "build_services",
    "bundle_signer",
    "directory_sources",
    "directory_tiles",
    "explainer_of",
    "fetch_public_key",
    "formatter_of",
    "linter_of",
    "make_anchor",
    "make_core",
    "make_evaluator",
    "make_gateway",
    "make_gateway_evaluator",
    "make_opa_server",
    "make_tiles",
    "make_witness",
    "open_audit_sources",
    "open_database_copy",
    "open_for_audit",
    "open_for_rebuild",
    "open_shared",
    "open_signer",
    "summarise_logs",
    "witness_vkey",
]
