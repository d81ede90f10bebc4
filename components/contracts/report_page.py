"""The frame of every report: one self-contained HTML page, readable without a network, in light and dark, on screen and paper.

    page("Evaluation", [Section("Metrics", [Table(["metric", "value"], [["AUC", 0.71]])])], subtitle="flights, model 3")

Text is escaped everywhere; the only markup taken as it is are the figures' SVG strings (see `components.contracts.figures`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Literal

from components.contracts.durations import format_moment

Tone = Literal["good", "bad", "warn", "info"]
Cell = object


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by empty lines. `small`: a side note."""

    text: str
    small: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result in one sentence, set off by its tone; the tone is also a word, so colour is never the only sign."""

    tone: Tone
    headline: str
    text: str = ""


@dataclass(frozen=True)
class Facts:
    """Few names with their values, side by side."""

    values: Mapping[str, Cell]


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Numbers align right, floats are shown with four significant digits; a cell may be a `Badge` or a `Link`. `tones`: row number -> tone."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    tones: Mapping[int, Tone] = field(default_factory=dict)


@dataclass(frozen=True)
class Badge:
    tone: Tone
    text: str


@dataclass(frozen=True)
class Link:
    text: str
    href: str


@dataclass(frozen=True)
class Figure:
    """`svg`: markup that starts with `<svg`. `alt`: what it shows, for those who cannot see it. `wide`: the whole width, else two a row."""

    svg: str
    caption: str
    alt: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for."""

    summary: str
    blocks: Sequence[Block]


Block = Text | Verdict | Facts | Bullets | Table | Figure | Details


@dataclass(frozen=True)
class Section:
    """A heading with an anchor (`anchor`, or made from the title) and its blocks."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ""

    @property
    def id(self) -> str:
        return self.anchor or re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def page(title: str, sections: Sequence[Section], *, subtitle: str = "", lead: Sequence[Block] = (), footer: str = "", contents: bool | None = None) -> str:
    """The whole page. `lead`: blocks above the first heading (a verdict, facts). `contents`: a list of sections; by default from four on."""
    navigation = ""
    if contents if contents is not None else len(sections) > 3:
        items = "".join(f'<li><a href="#{escape(section.id)}">{escape(section.title)}</a></li>' for section in sections)
        navigation = f'<nav aria-label="Contents"><ol>{items}</ol></nav>'
    body = "".join(f'<section id="{escape(s.id)}"><h2>{escape(s.title)}</h2>{render(s.blocks)}</section>' for s in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{STYLE}</style></head><body><main>'
        f"<header><h1>{escape(title)}</h1>{f'<p class=subtitle>{escape(subtitle)}</p>' if subtitle else ''}</header>{render(lead)}{navigation}{body}"
        f"{f'<footer>{escape(footer)}</footer>' if footer else ''}</main></body></html>\n"
    )


def render(blocks: Iterable[Block]) -> str:
    """Blocks as HTML; neighbouring half-width figures share a row."""
    parts: list[str] = []
    row: list[str] = []
    for block in blocks:
        if isinstance(block, Figure) and not block.wide:
            row.append(_block(block))
            continue
        if row:
            parts.append(f'<div class="row">{"".join(row)}</div>')
            row = []
        parts.append(_block(block))
    if row:
        parts.append(f'<div class="row">{"".join(row)}</div>')
    return "".join(parts)


def cell_text(value: Cell) -> str:
    """A value as people read it: four significant digits, thousands separated, RFC 3339 moments, an em dash for nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        if value == 0 or 1e-4 <= abs(value) < 1e4:
            return f"{value:.4g}"
        return f"{value:,.0f}".replace(",", "\u202f") if 1e4 <= abs(value) < 1e12 else f"{value:.3e}"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return format_moment(value)
    return str(value)


def _block(block: Block) -> str:
    match block:
        case Text(text, small):
            kind = ' class="small"' if small else ""
            return "".join(f"<p{kind}>{escape(part)}</p>" for part in text.split("\n\n"))
        case Verdict(tone, headline, text):
            return f'<div class="verdict {tone}" role="status"><strong>{escape(headline)}</strong>{f"<p>{escape(text)}</p>" if text else ""}</div>'
        case Facts(values):
            return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{_cell(value)}</dd></div>' for name, value in values.items())}</dl>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Table():
            return _table(block)
        case Figure(svg, caption, alt, wide):
            if not svg.lstrip().startswith("<svg"):
                raise ValueError("a figure's markup must start with <svg")
            kind = "wide" if wide else "half"
            return (
                f'<figure class="{kind}"><div role="img" aria-label="{escape(alt or caption)}">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'
            )
        case Details(summary, blocks):
            return f"<details><summary>{escape(summary)}</summary>{render(blocks)}</details>"


def _table(table: Table) -> str:
    numeric = [
        bool(values := [row[i] for row in table.rows if row[i] is not None]) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        for i in range(len(table.columns))
    ]
    head = "".join(f'<th scope="col"{_side(numeric[i])}>{escape(name)}</th>' for i, name in enumerate(table.columns))
    rows = "".join(_row(row, numeric, table.tones.get(number, "")) for number, row in enumerate(table.rows))
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(row: Sequence[Cell], numeric: Sequence[bool], tone: str) -> str:
    cells = "".join(f"<td{_side(numeric[i])}>{_cell(value)}</td>" for i, value in enumerate(row))
    return f'<tr class="{tone}">{cells}</tr>' if tone else f"<tr>{cells}</tr>"


def _side(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _cell(value: Cell) -> str:
    if isinstance(value, Badge):
        return f'<span class="badge {value.tone}">{escape(value.text)}</span>'
    if isinstance(value, Link):
        href = value.href if re.match(r"^(https?://|#|\.{0,2}/|[\w.-]+(/|$))", value.href) else "#"
        return f'<a href="{escape(href)}">{escape(value.text)}</a>'
    return escape(cell_text(value))


STYLE = """
:root{--paper:#fcfcfa;--ink:#22252a;--soft:#646a73;--line:#dfe1e4;--fill:#f2f3f1;--link:#1f5fa8;
--good:#1e7145;--bad:#a8322a;--warn:#8a5a00;--info:#3a5f8a;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#dfe2e6;--soft:#98a0aa;--line:#31363d;--fill:#1d2126;--link:#8ab8ee;
--good:#6cc495;--bad:#ee8b81;--warn:#ddb35c;--info:#8fb5e0}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;font-weight:650;margin:0}h2{font-size:1.2rem;font-weight:620;margin:2.75rem 0 .75rem;scroll-margin-top:1rem}
p{margin:.6rem 0;max-width:44rem}.subtitle{color:var(--soft);margin:.35rem 0 0}.small,figcaption,caption,footer{color:var(--soft);font-size:.875rem}
header{margin-bottom:1.5rem}a{color:var(--link);text-underline-offset:.15em}
nav ol{display:flex;flex-wrap:wrap;gap:.3rem 1.25rem;list-style:none;padding:.7rem 0;margin:1.5rem 0 0;border:solid var(--line);border-width:1px 0;font-size:.9rem}
.verdict{border-left:4px solid var(--tone);background:var(--fill);padding:.8rem 1rem;margin:1rem 0;border-radius:0 4px 4px 0}.verdict strong{color:var(--tone)}.verdict p{margin:.25rem 0 0}
.good{--tone:var(--good)}.bad{--tone:var(--bad)}.warn{--tone:var(--warn)}.info{--tone:var(--info)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5rem,1fr));gap:1rem 1.5rem;margin:1rem 0}dt{color:var(--soft);font-size:.85rem}
dd{margin:.1rem 0 0;font-weight:550;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;min-width:50%;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:0 0 .5rem}th{text-align:left;font-weight:600;color:var(--soft);font-size:.85rem;border-bottom:1px solid var(--soft)}
th,td{padding:.38rem 1.1rem .38rem 0;vertical-align:top}td{border-bottom:1px solid var(--line)}.number{text-align:right}
tr[class] td:first-child{box-shadow:inset 3px 0 var(--tone);padding-left:.7rem}
.badge{display:inline-block;color:var(--tone);border:1px solid currentColor;border-radius:99px;padding:0 .6em;font-size:.82rem;font-weight:600;white-space:nowrap}
figure{margin:1.25rem 0}figure svg{display:block;width:100%;height:auto;color:var(--ink)}figcaption{margin-top:.4rem}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:0 1.75rem}
details{border-top:1px solid var(--line);padding:.6rem 0;margin:.6rem 0}summary{cursor:pointer;color:var(--link)}
footer{margin-top:3.5rem;border-top:1px solid var(--line);padding-top:.8rem}ul{padding-left:1.2rem;max-width:44rem}
@media print{main{max-width:none;padding:0}section{break-inside:avoid-page}details:not([open])>*{display:block}}
"""
