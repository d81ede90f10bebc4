"""The generated reference pages are what the code says, complete and readable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from components.contracts import artifacts, events, features, records, serving, usecase
from components.monitoring import feedback
from pipelines import reference_meanings as meanings
from pipelines import reference_pages


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_a_committed_page_is_what_the_code_says(name: str) -> None:
    committed = (reference_pages.FOLDER / name).read_text()
    assert committed == reference_pages.PAGES[name](), f"{name} is not current; run {reference_pages.COMMAND}"


def test_no_meaning_is_left_over_from_a_key_that_is_gone() -> None:
    fields: dict[str, set[str]] = {"": set()}
    for module in (artifacts, events, features, feedback, records, serving, usecase):
        for model in reference_pages._models_of(module):
            fields.setdefault(model.__name__, set()).update(model.model_fields)
            fields[""].update(model.model_fields)
    for known in (meanings.USECASE, meanings.FEATURES, meanings.RECORDS, meanings.EVENTS):
        for key in known:
            model, _, field = key.rpartition(".")
            assert field in fields[model], f"{key} names no field"
    assert set(meanings.KINDS) == set(get_args(records.RecordKind))
    assert set(meanings.HEADERS) == set(reference_pages.executor_headers())


def test_every_section_of_a_use_case_has_a_table_with_all_its_keys() -> None:
    page = reference_pages.usecase_page()
    for model in (usecase.UseCase, usecase.Business, usecase.Label, usecase.Gate, usecase.Detector, usecase.Retraining):
        section = re.split(r"^##+ ", page.split(f" {model.__name__}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(model.model_fields)


def test_the_page_of_commands_names_every_command_and_leaves_no_markup() -> None:
    page = reference_pages.cli_page()
    for command in ("validate", "run data", "run training", "run monitoring", "step", "serve", "rollback", "demo"):
        assert f"\n## crispline {command}\n" in page
    assert "[dim]" not in page and "[/dim]" not in page


def test_links_between_the_pages_of_the_documentation_lead_somewhere() -> None:
    docs = reference_pages.ROOT / "docs"
    broken = []
    for page in docs.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://")) and not (page.parent / Path(target)).exists():
                broken.append(f"{page.relative_to(docs)}: {target}")
    assert not broken, "\n".join(broken)


def test_every_command_in_the_documentation_exists_with_its_options() -> None:
    known = re.findall(r"^## (crispline .+)$", reference_pages.cli_page(), re.MULTILINE)
    options = {name: set(re.findall(r"`(-[\w-]+)`", reference_pages.cli_page().split(f"## {name}\n", 1)[1].split("\n## ", 1)[0])) for name in known}
    wrong = []
    for page in (reference_pages.ROOT / "docs").rglob("*.md"):
        for line in re.findall(r"^\s*(crispline .+)$", _code_of(page), re.MULTILINE):
            command = re.split(r"\s+[#|]", re.sub(r"'[^']*'", "TEXT", line))[0]
            name = next((name for name in known if f"{command} ".startswith(f"{name} ")), None)
            given = set(re.findall(r"(?<=\s)(--?[a-z][\w-]*)", command)) - {"--help", "-h"}
            if name is None or (name != "crispline demo" and given - options[name]):
                wrong.append(f"{page.name}: {line}")
    assert not wrong, "\n".join(wrong)


def _code_of(page: Path) -> str:
    """The fenced blocks of a page."""
    return "\n".join(page.read_text().split("```")[1::2])
