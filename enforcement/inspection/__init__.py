"""Inspection: what stands in arguments, results, prompts and tool descriptions that nobody wants there.

`Inspector` takes a text or a JSON text and gives findings: kind, rule and place, never the value. It decides nothing:
what a finding means is said by policies and settings, what is done about it by `enforcement.answer_inspection` and
`enforcement.stream_inspection`, and how it is taken out of a text by `enforcement.redaction`.
"""

from enforcement.inspection.engine import Inspector
from enforcement.inspection.findings import KINDS, Finding, Findings, Kind
from enforcement.inspection.scanner import read_folder
from enforcement.inspection.settings import Limits, Role, Settings, TenantIdentifiers, Thresholds

__all__ = [
    "KINDS",
    "Finding",
    "Findings",
    "Inspector",
    "Kind",
    "Limits",
    "Role",
    "Settings",
    "TenantIdentifiers",
    "Thresholds",
    "read_folder",
]
