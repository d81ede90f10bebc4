"""Reports are safe and self-contained whatever text they are given."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from components.contracts.report_page import Badge, Bullets, Details, Facts, Figure, Link, Section, Table, Text, Verdict, cell_text, page

EVIL = '<img src=x onerror="alert(1)">'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attributes)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.opened


def test_no_text_becomes_markup() -> None:
    blocks = [Text(EVIL), Verdict("bad", EVIL, EVIL), Facts({EVIL: EVIL}), Bullets([EVIL]), Details(EVIL, [Text(EVIL)])]
    blocks += [Table([EVIL], [[EVIL], [Badge("good", EVIL)], [Link(EVIL, f"run/{EVIL}")]], caption=EVIL), Figure("<svg></svg>", EVIL, EVIL)]
    html = page(EVIL, [Section(EVIL, blocks)], subtitle=EVIL, lead=[Text(EVIL)], footer=EVIL, contents=True)
    found = tags(html)
    assert {"img", "script"}.isdisjoint(tag for tag, _ in found)
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)


@pytest.mark.parametrize("href", ["javascript:alert(1)", "data:text/html,x", " javascript:x"])
def test_a_link_cannot_run_anything(href: str) -> None:
    html = page("t", [Section("s", [Table(["a"], [[Link("go", href)]])])])
    assert [attributes["href"] for tag, attributes in tags(html) if tag == "a"] == ["#"]


@pytest.mark.parametrize("href", ["https://example.org/a?b=1", "#gates", "records/gates/1.json", "../card.html", "report.html"])
def test_useful_links_stay(href: str) -> None:
    html = page("t", [Section("s", [Table(["a"], [[Link("go", href)]])])])
    assert [attributes["href"] for tag, attributes in tags(html) if tag == "a"] == [href]


def test_a_figure_must_be_svg() -> None:
    with pytest.raises(ValueError, match="<svg"):
        page("t", [Section("s", [Figure("<script>", "caption")])])


def test_sections_can_be_reached_from_the_contents() -> None:
    html = page("t", [Section(f"Part {number}", []) for number in range(4)])
    found = tags(html)
    targets = {attributes["href"] for tag, attributes in found if tag == "a"}
    assert targets == {f"#{attributes['id']}" for tag, attributes in found if tag == "section"}
    assert "<nav" not in page("t", [Section("only one", [])])


def test_every_opened_element_is_closed_in_order() -> None:
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.stack: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
            if tag not in ("meta", "img", "br"):
                self.stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.stack.pop() == tag

    balance = Balance()
    figures = [Figure("<svg></svg>", "a", wide=False), Figure("<svg></svg>", "b", wide=False), Text("c\n\nd", small=True)]
    balance.feed(page("t", [Section("s", [*figures, Table(["a", "b"], [["x", 1.0], ["y", None]], tones={1: "bad"}), Details("more", figures)])]))
    assert balance.stack == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (float("nan"), "—"),
        (True, "yes"),
        (0.123456, "0.1235"),
        (1.0, "1"),
        (1234, "1234"),
        (1_234_567, "1\u202f234\u202f567"),
        (0.00001234, "1.234e-05"),
        (23456.7, "23\u202f457"),
        (datetime(2013, 4, 1, tzinfo=UTC), "2013-04-01T00:00:00Z"),
    ],
)
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert cell_text(value) == text
