"""Reports of policy tests in JUnit's XML, as CI systems read it.

Pure. A suite is a test file, a case a case; what differed from the expectation is the failure's text. Rules that no
case reaches stand among each suite's properties: a CI system keeps them, and no tool takes them for a failed test.

Source: the JUnit XML format as Jenkins and GitLab document it (``testsuites``, ``testsuite``, ``testcase``).
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from policies.testing import CaseResult, TestReport

__all__ = ["junit_xml"]

# XML 1.0 has no spelling for these characters, not even as references.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: str) -> str:
    return _NO_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


def _counts(results: tuple[CaseResult, ...]) -> dict[str, str]:
    failures = sum(bool(result.differences) for result in results)
    return {"tests": str(len(results)), "failures": str(failures), "errors": "0", "skipped": "0"}


def _add_case(suite: Element, bundle: str, result: CaseResult) -> None:
    case = SubElement(
        suite, "testcase", {"classname": _text(f"{bundle}.{result.case.file}"), "name": _text(result.case.name)}
    )
    if result.differences:
        lines = [_text(line) for line in result.differences]
        SubElement(case, "failure", {"type": "difference", "message": lines[0]}).text = "\n".join(lines)


def junit_xml(bundle: str, revision: str, report: TestReport) -> bytes:
    """Return a report as an XML document in UTF-8.

    Args:
        bundle: The bundle's name.
        revision: Its digest, in hexadecimal.
        report: What became of its tests.
    """
    root = Element("testsuites", {"name": _text(bundle), **_counts(report.results)})
    properties = [("bundle_revision", revision), *(("rule_not_reached", rule) for rule in report.uncovered)]
    for file, group in groupby(report.results, key=lambda result: result.case.file):
        results = tuple(group)
        suite = SubElement(root, "testsuite", {"name": _text(file), **_counts(results)})
        listed = SubElement(suite, "properties")
        for name, value in properties:
            SubElement(listed, "property", {"name": name, "value": _text(value)})
        for result in results:
            _add_case(suite, bundle, result)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document
