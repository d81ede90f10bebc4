"""The edges of this phase's pipeline steps: files and platform in, pages and records out."""

from __future__ import annotations

from pathlib import Path

from components.contracts.artifacts import DatasetManifest
from components.contracts.durations import parse_moment
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.model_engineering.rows import read_dataset


def run_profile(usecase: str, dataset: str, manifest: str, report: str) -> None:
    from components.understanding.profile import profile_page

    description = DatasetManifest.model_validate_json(Path(manifest).read_text())
    Path(report).write_text(profile_page(load_usecase(usecase), read_dataset(dataset), description))


def run_feasibility(usecase: str, dataset: str, manifest: str, feasibility: str) -> str:
    """Store the record and its check, write the record to `feasibility`, return `go` or `no_go`."""
    from components.understanding.feasibility import assess_feasibility, feasibility_check

    store = RecordStore(Platform.load().records_uri)
    record = assess_feasibility(load_usecase(usecase), read_dataset(dataset), DatasetManifest.model_validate_json(Path(manifest).read_text()))
    store.append(record)
    store.append(feasibility_check(record))
    Path(feasibility).write_text(record.model_dump_json(indent=1) + "\n")
    return record.outcome


def run_feedback_summary(usecase: str, as_of: str, report: str) -> None:
    """Store the record and write the page to `report`."""
    from components.monitoring.feedback import read_feedback
    from components.understanding.feedback_summary import last_cycle, summarise, summary_page

    loaded, platform, moment = load_usecase(usecase), Platform.load(), parse_moment(as_of)
    store = RecordStore(platform.records_uri)
    cycle = last_cycle(store, loaded.name, read_feedback(platform.labels_uri, loaded.name, moment), moment)
    record = store.append(summarise(loaded, cycle))
    Path(report).write_text(summary_page(loaded, cycle, record))
