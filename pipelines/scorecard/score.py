"""The score itself: a full point for what is automated and holds, half a point for what is done by hand and documented (Breck et al., section VI)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from pipelines.scorecard.catalogue import ML_TESTS, SECTIONS, MlTest, Section
from pipelines.scorecard.kept_results import MarkedTest, Outcome, outcome_of

BY_HAND_FILE = "ml-test-score.md"


@dataclass(frozen=True)
class Evidence:
    """One test, check or page. `holds`: it ran on this state and passed; `link`: where to read it, relative to the repository or the state folder."""

    what: str
    outcome: str
    holds: bool
    link: str = ""


@dataclass(frozen=True)
class Scored:
    """`points`: 1 automated and holding, 0.5 by hand, 0 nothing, or something that did not run or failed."""

    test: MlTest
    points: float
    evidence: tuple[Evidence, ...]

    @property
    def how(self) -> str:
        if self.points == 1.0:
            return "automated"
        if self.points == 0.5:
            return "by hand, documented"
        return "no evidence" if not self.evidence else "; ".join(f"{each.what}: {each.outcome}" for each in self.evidence if not each.holds)


@dataclass(frozen=True)
class Scorecard:
    usecase: str
    rows: tuple[Scored, ...]

    def section(self, section: Section) -> float:
        return sum(row.points for row in self.rows if row.test.section == section)

    @property
    def score(self) -> float:
        """The minimum over the sections: what is weakest decides."""
        return min(self.section(section) for section in SECTIONS)


def scorecard(usecase_folder: Path, root: Path, platform: Platform | None) -> Scorecard:
    """The card of one use case. `platform`: the installation whose records count; without one, checks of pipeline runs count as not run."""
    name = usecase_folder.name
    checks = latest_checks(platform, name) if platform is not None else {}
    return Scorecard(
        name, tuple(score(test, outcome_of_tests, checks, by_hand(usecase_folder)) for outcome_of_tests in [outcome_of(root)] for test in ML_TESTS)
    )


def score(test: MlTest, tests: Mapping[MarkedTest, Outcome], checks: Mapping[str, Record], documented: Mapping[str, str]) -> Scored:
    """One row. Everything that automates a test has to have run and passed; one that did not leaves no point, documented or not."""
    automated = [Evidence(f"{one.file}::{one.name}", outcome, outcome == "passed", one.file) for one, outcome in tests.items() if test.id in one.ids]
    automated += [_checked(name, checks.get(name)) for name in test.checks]
    if automated:
        return Scored(test, float(all(each.holds for each in automated)), tuple(automated))
    if test.id in documented:
        return Scored(test, 0.5, (Evidence("documented", documented[test.id], True, BY_HAND_FILE),))
    return Scored(test, 0.0, ())


def _checked(name: str, record: Record | None) -> Evidence:
    if record is None:
        return Evidence(f"check {name}", "not run", False)
    return Evidence(f"check {name}", record.outcome, record.outcome == "passed", f"records/check/{record.id}.json")


def latest_checks(platform: Platform, usecase: str) -> Mapping[str, Record]:
    """The last record of each quality check that is about what is in service, or about no model; a refused challenger's does not count."""
    store = RecordStore(platform.records_uri)
    promoted = [record for record in [*store.list("promotion"), *store.list("rollback")] if record.usecase == usecase and record.lineage.model_version]
    champion = max(promoted, key=lambda record: record.event_time).lineage.model_version if promoted else ""
    found: dict[str, Record] = {}
    for record in store.list("check"):
        if record.usecase == usecase and record.lineage.model_version in ("", champion):
            found[str(record.details.get("check"))] = record
    return found


def by_hand(usecase_folder: Path) -> Mapping[str, str]:
    """What a use case documents as done by hand: `## <id> ...` in its ml-test-score.md, with at least one line of text below; id to first line."""
    file = usecase_folder / BY_HAND_FILE
    if not file.exists():
        return {}
    parts = re.split(r"^## +", file.read_text(), flags=re.MULTILINE)[1:]
    known = {test.id for test in ML_TESTS}
    found = {}
    for part in parts:
        heading, _, body = part.partition("\n")
        lines: Sequence[str] = [line.strip() for line in body.splitlines() if line.strip()]
        id = heading.split()[0].rstrip(":") if heading.split() else ""
        if id in known and lines:
            found[id] = lines[0]
    return found


def as_markdown(card: Scorecard) -> str:
    """A table a section, sums and the score."""
    lines = [f"# ML Test Score of {card.usecase}: {card.score:g}", "", "The lowest section decides (Breck et al., Google pub46555).", ""]
    lines += ["| section | points of 7 |", "|---|---|", *(f"| {title} | {card.section(section):g} |" for section, title in SECTIONS.items()), ""]
    for section, title in SECTIONS.items():
        lines += [f"## {title}", "", "| test | points | how | evidence |", "|---|---|---|---|"]
        for row in card.rows:
            if row.test.section == section:
                evidence = "<br>".join(f"`{each.what}`" for each in row.evidence)
                lines.append(f"| {row.test.title} | {row.points:g} | {row.how} | {evidence} |")
        lines.append("")
    return "\n".join(lines)
