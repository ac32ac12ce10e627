"""How a diagnosis is shown: as text for a person, or as JSON for a program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.terminal import one_line

if TYPE_CHECKING:
    from llmdispatcher.doctor import Diagnosis
    from llmdispatcher.vendors.llamacpp.checkup import Part


def text(diagnosis: Diagnosis) -> str:
    """Write the parts one below the other, findings with their remedies, and the sum at last."""
    return "\n".join([*map(_part, diagnosis.parts), _sum(diagnosis)])


def as_json(diagnosis: Diagnosis) -> str:
    """Write one JSON object, all in ASCII."""
    parts = [
        {
            "name": part.name,
            "facts": dict(part.facts),
            "findings": [attrs.asdict(finding) for finding in part.findings],
        }
        for part in diagnosis.parts
    ]
    problems = diagnosis.problems
    return json.dumps({"ok": not problems, "problems": problems, "parts": parts}) + "\n"


def _part(part: Part) -> str:
    wide = max((len(name) for name, _ in part.facts), default=0)
    lines = [f"  {name.ljust(wide)}  {one_line(fact)}" for name, fact in part.facts]
    for finding in part.findings:
        kind = "PROBLEM" if finding.serious else "advice"
        lines += [f"  {kind}: {one_line(finding.what)}", f"    -> {one_line(finding.remedy)}"]
    return "\n".join([part.name, *lines, ""])


def _sum(diagnosis: Diagnosis) -> str:
    advice = sum(len(part.findings) for part in diagnosis.parts) - diagnosis.problems
    return (
        f"problems: {diagnosis.problems}, advice: {advice}, looked for {diagnosis.took_s:.1f} s\n"
    )
