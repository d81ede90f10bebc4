"""Every chart's README and descriptions follow from its values.yaml; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.chart_pages import CHARTS, ChartFault, comments, main, pages

ALL = sorted(file.parent for file in CHARTS.glob("*/Chart.yaml"))


@pytest.mark.parametrize("chart", ALL, ids=lambda chart: chart.name)
def test_readme_and_schema_are_current(chart: Path) -> None:
    stale = [file.name for file, content in pages(chart).items() if not file.is_file() or file.read_text() != content]
    assert stale == [], f"run `python -m pipelines.chart_pages charts/{chart.name}`"


VALUES = """\
# About the file; belongs to no value.

# How many pods.
# One is enough.
replicas: 1
image:
  # Where it is pulled from.
  repository: example
  tag: ""
# Free labels.
labels: {}
"""


def schema(**changes: Any) -> dict[str, Any]:
    text = {"type": "string"}
    image = {
        "type": "object",
        "description": "The image.",
        "additionalProperties": False,
        "properties": {"repository": text, "tag": {**text, "description": "Its tag."}},
    }
    labels = {"type": "object", "additionalProperties": text}
    properties = {"replicas": {"type": "integer"}, "image": image, "labels": labels}
    return {"type": "object", "additionalProperties": False, "properties": {**properties, **changes}}


def chart(folder: Path, described: dict[str, Any], values: str = VALUES) -> Path:
    made = folder / "example"
    made.mkdir(exist_ok=True)
    (made / "Chart.yaml").write_text("name: example\ndescription: An example.\nkubeVersion: '>=1.30'\n")
    (made / "values.yaml").write_text(values)
    (made / "values.schema.json").write_text(json.dumps(described))
    return made


def test_a_comment_is_that_of_the_key_below_it() -> None:
    assert comments(VALUES) == {"replicas": "How many pods. One is enough.", "image.repository": "Where it is pulled from.", "labels": "Free labels."}


def test_comments_become_descriptions_and_rows(tmp_path: Path) -> None:
    made = chart(tmp_path, schema())
    assert main([str(made)]) == 0 and main([str(made), "--check"]) == 0
    described = json.loads((made / "values.schema.json").read_text())["properties"]
    assert described["replicas"]["description"] == "How many pods. One is enough."
    assert described["image"]["properties"]["tag"]["description"] == "Its tag.", "what has no comment keeps its own"
    readme = (made / "README.md").read_text()
    assert '| `image.repository` | string | `"example"` | Where it is pulled from. |' in readme
    assert "| `labels` | object | `{}` | Free labels. |" in readme and "Needs Kubernetes >=1.30." in readme


def test_a_changed_comment_makes_both_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = chart(tmp_path, schema())
    main([str(made)])
    (made / "values.yaml").write_text(VALUES.replace("One is enough.", "Two are better."))
    assert main([str(made), "--check"]) == 1
    assert capsys.readouterr().out.count("out of date") == 2


@pytest.mark.parametrize(
    ("changes", "values", "complaint"),
    [
        (
            {
                "image": {
                    "type": "object",
                    "description": "The image.",
                    "properties": {"repository": {"type": "string"}, "tag": {"type": "string", "description": "t"}},
                }
            },
            VALUES,
            "image takes unknown keys",
        ),
        ({"labels": {"type": "object"}}, VALUES, "labels says nothing of its keys"),
        ({"more": {"type": "string"}}, VALUES, "more has no description"),
        ({}, VALUES + "more: 1\n", "more is not in values.schema.json"),
        ({}, VALUES + "# Misplaced.\nmore: 1\n", "more is not in values.schema.json"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], values: str, complaint: str) -> None:
    with pytest.raises(ChartFault, match=complaint):
        pages(chart(tmp_path, schema(**changes), values))
