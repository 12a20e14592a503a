"""A gate's report as JUnit XML, which CI systems show: a suite for each device, a case for each check."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as xml

from edgekit.bench.gate import GateCheck, GateReport
from edgekit.files import atomic_write

# All that isn't a Char of XML 1.0 (§2.2): no escape makes it legal there.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: GateReport) -> bytes:
    """The document, in UTF-8. A warning that doesn't fail is told in its case's ``system-out``."""
    bad = {id(one) for one in report.regressions}
    root = xml.Element("testsuites", name="edgekit gate")
    for device in dict.fromkeys(one.device for one in report.checks):
        checks = [one for one in report.checks if one.device == device]
        suite = xml.SubElement(root, "testsuite", name=clean(device))
        if device in report.created:
            suite.set("timestamp", clean(report.created[device]))
        _count(suite, checks, sum(id(one) in bad for one in checks))
        for one in checks:
            _case(suite, one, id(one) in bad)
    _count(root, list(report.checks), len(bad))
    xml.indent(root)
    document: bytes = xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def save_junit(report: GateReport, path: Path) -> None:
    """Write it, atomically."""
    atomic_write(path, junit(report))


def clean(text: str) -> str:
    """The text with U+FFFD for each character that XML 1.0 forbids."""
    return _FORBIDDEN.sub("\ufffd", text)


def _count(element: xml.Element, checks: list[GateCheck], failures: int) -> None:
    element.set("tests", str(len(checks)))
    element.set("failures", str(failures))
    element.set("errors", "0")
    element.set("skipped", str(sum(one.outcome == "skipped" for one in checks)))
    element.set("time", "0")


def _case(suite: xml.Element, one: GateCheck, bad: bool) -> None:
    case = xml.SubElement(
        suite,
        "testcase",
        classname=clean(f"edgekit.{one.device}.{one.kind}"),
        name=clean(f"{one.subject}: {one.kind}"),
        time="0",
    )
    text = clean(one.message)
    if bad:
        xml.SubElement(case, "failure", message=text, type=one.kind).text = text
    elif one.outcome == "skipped":
        xml.SubElement(case, "skipped", message=text)
    else:
        told = "warning: " if one.outcome == "warning" else ""
        xml.SubElement(case, "system-out").text = told + text
