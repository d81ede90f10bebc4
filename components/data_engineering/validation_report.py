"""The readable form of a validation: one self-contained HTML page with sample rows of every breach."""

from __future__ import annotations

from html import escape

from components.contracts.durations import format_moment
from components.data_engineering.validate import Finding, Validation

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem} .verdict{font-weight:600}
.passed{color:#11693b} .failed{color:#a3201d} .not_judged{color:#5c6670}
table{border-collapse:collapse;font-size:13px;width:100%} th,td{border-bottom:1px solid #d9dee4;padding:.3rem .6rem;text-align:left;vertical-align:top}
.scroll{overflow-x:auto} code{background:#f1f3f5;padding:0 .25rem}
"""
_WORDS = {"passed": "passed", "failed": "FAILED", "not_judged": "not judged"}


def validation_report(validation: Validation) -> str:
    """HTML text: verdict, what broke with sample rows, then every check that was made."""
    verdict = "Every row holds the contract." if validation.passed else f"{len(validation.failures)} checks failed; the pipeline stops here."
    rows = sum(validation.rows.values())
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Data validation: {escape(validation.usecase)}</title>",
        f"<style>{_STYLE}</style></head><body><h1>Data validation: {escape(validation.usecase)}</h1>",
        f"<p>Rows that became known from {format_moment(validation.start)} to {format_moment(validation.end)}: {rows:,}. ",
        f"Data version <code>{escape(validation.data_version.id)}</code>.</p>",
        f"<p class='verdict {'passed' if validation.passed else 'failed'}'>{escape(verdict)}</p>",
    ]
    for finding in validation.failures:
        parts.append(f"<h2 class='failed'>{escape(_title(finding))}</h2><p>{escape(finding.message)}</p>{_sample(finding)}")
    parts.append("<h2>All checks</h2><div class='scroll'><table><tr><th>table</th><th>check</th><th>column</th><th>outcome</th><th>what was found</th></tr>")
    for finding in validation.findings:
        cells = (finding.table, finding.check.replace("_", " "), finding.column)
        parts.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
        parts.append(f"<td class='{finding.outcome}'>{_WORDS[finding.outcome]}</td><td>{escape(finding.message)}</td></tr>")
    parts.append("</table></div></body></html>")
    return "".join(parts)


def _title(finding: Finding) -> str:
    return f"{finding.table}{'.' + finding.column if finding.column else ''}: {finding.check.replace('_', ' ')}"


def _sample(finding: Finding) -> str:
    if not finding.sample:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in finding.sample[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row.values()) + "</tr>" for row in finding.sample)
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div><p>{len(finding.sample)} of {finding.rows} rows are shown.</p>"
