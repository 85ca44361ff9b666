"""Inspection: what stands in arguments, results, prompts and tool descriptions that nobody wants there.

`Inspector` takes a text or a JSON text and gives findings: kind, rule and place, never the value. It decides nothing:
what a finding means is said by policies and settings.
"""

from enforcement.inspection.engine import Inspector
from enforcement.inspection.findings import KINDS, Finding, Findings, Kind
from enforcement.inspection.redaction import redacted_json, redacted_text
from enforcement.inspection.scanner import read_folder
from enforcement.inspection.settings import Limits, Role, Settings, TenantIdentifiers, Thresholds
from enforcement.inspection.stream import Inspected, Stream

__all__ = [
    "KINDS",
    "Finding",
    "Findings",
    "Inspected",
    "Inspector",
    "Kind",
    "Limits",
    "Role",
    "Settings",
    "Stream",
    "TenantIdentifiers",
    "Thresholds",
    "read_folder",
    "redacted_json",
    "redacted_text",
]
