"""`python -m pipelines.chart_pages charts/<name> ...`: a chart's README and the descriptions in its values.schema.json, from its values.yaml.

The comment above a key in values.yaml says what the value is for; there is no second place where that is written. The schema adds type,
default and what is allowed. A value that has no line in values.yaml (an optional key) is described in the schema itself. The chart's
`about.md`, where there is one, opens the README. Without an argument every chart under charts/ is done; `--check` writes nothing and ends
with 1 when something is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.contracts.errors import CrisplineError

CHARTS = Path(__file__).resolve().parents[1] / "charts"
Schema = dict[str, Any]
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z0-9_.-]+):(?P<rest>.*)$")
_MAPS = ("properties", "additionalProperties", "patternProperties")


class ChartFault(CrisplineError):
    """Values, comments and schema of a chart do not fit; every fault found is listed."""


@dataclass(frozen=True)
class Row:
    """One value: its path with dots, its type, its default as JSON, and what it is for."""

    path: str
    type: str
    default: str
    description: str


def pages(chart: Path) -> dict[Path, str]:
    """The contents of README.md and values.schema.json as they should be. Raises ChartFault for a value without a description or outside the schema."""
    values_text = (chart / "values.yaml").read_text()
    values = YAML(typ="safe").load(values_text) or {}
    schema = json.loads((chart / "values.schema.json").read_text())
    described = describe(schema, comments(values_text))
    faults = [*unclosed(described), *undescribed(described), *unknown(values, described)]
    if faults:
        raise ChartFault("\n".join(f"{chart.name}: {fault}" for fault in faults))
    definition = YAML(typ="safe").load((chart / "Chart.yaml").read_text())
    about = chart / "about.md"
    return {
        chart / "values.schema.json": json.dumps(described, indent=2, ensure_ascii=False) + "\n",
        chart / "README.md": _readme(definition, about.read_text() if about.is_file() else "", list(rows(values, described))),
    }


def comments(values_text: str) -> dict[str, str]:
    """The comment above each key, by the key's path with dots. Keys inside of lists have none."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in values_text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            above.append(bare.lstrip("#").strip())
            continue
        match = _KEY.match(line)
        if match is None:
            above = []
            continue
        indent = len(match["indent"])
        while path and path[-1][0] >= indent:
            path.pop()
        path.append((indent, match["key"]))
        if above:
            found[".".join(key for _, key in path)] = " ".join(part for part in above if part)
        above = []
    return found


def describe(schema: Schema, found: Mapping[str, str]) -> Schema:
    """The schema with each comment as the description of its value. Raises ChartFault for a comment on a value that the schema does not know."""
    described: Schema = json.loads(json.dumps(schema))
    for path, text in found.items():
        node = described
        for part in path.split("."):
            properties = resolve(node, described).get("properties", {})
            if part not in properties:
                raise ChartFault(f"values.yaml: {path} is not in values.schema.json\n    remedy: add it there with its type")
            node = properties[part]
        node["description"] = text
    return described


def rows(values: Mapping[str, Any], schema: Schema) -> Iterator[Row]:
    """Every value, in the order of the schema: leaves, and maps that are free or empty by default."""
    yield from _rows(values, schema, schema, "")


def _rows(values: Any, node: Schema, whole: Schema, path: str) -> Iterator[Row]:
    resolved = resolve(node, whole)
    properties = resolved.get("properties", {})
    if path and (not properties or resolved.get("type") != "object"):
        yield Row(path, type_of(resolved, whole), _default(values), str(node.get("description", resolved.get("description", ""))))
        return
    if path and not values and isinstance(values, Mapping):
        yield Row(path, type_of(resolved, whole), "`{}`", str(node.get("description", resolved.get("description", ""))))
    for name, inner in properties.items():
        if not path and name == "global":
            continue  # helm passes it to every chart
        inside = values.get(name) if isinstance(values, Mapping) else None
        yield from _rows(inside, inner, whole, f"{path}.{name}" if path else name)


def type_of(node: Schema, whole: Schema) -> str:
    """`string`, `integer or null`, `one of a, b`, `list of object`."""
    node = resolve(node, whole)
    if "enum" in node:
        return "one of " + ", ".join(f"`{json.dumps(each) if not isinstance(each, str) else each or '(empty)'}`" for each in node["enum"])
    kinds = node.get("type", "any")
    if kinds == "array" and "items" in node:
        return f"list of {type_of(node['items'], whole)}"
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def resolve(node: Schema, whole: Schema) -> Schema:
    """The node itself, or the definition that its `$ref` names, with the node's own description."""
    if "$ref" not in node:
        return node
    target: Any = whole
    for part in str(node["$ref"]).removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def unclosed(schema: Schema) -> Iterator[str]:
    """Objects that name properties and yet take unknown keys, so that a misspelling would pass."""
    for path, node in _nodes(schema, schema, ""):
        if node.get("type") == "object" and "properties" in node and node.get("additionalProperties") is not False:
            yield f"values.schema.json: {path or 'the top level'} takes unknown keys; set additionalProperties to false"
        elif node.get("type") == "object" and not any(key in node for key in _MAPS) and "x-passed-on" not in node:
            yield f'values.schema.json: {path} says nothing of its keys; declare them, or mark with "x-passed-on" what Kubernetes checks itself'


def undescribed(schema: Schema) -> Iterator[str]:
    for path, node in _nodes(schema, schema, ""):
        if path and not node.get("description"):
            yield f"values.schema.json: {path} has no description; write a comment above it in values.yaml"


def unknown(values: Any, schema: Schema) -> Iterator[str]:
    """Values without a place in the schema."""
    yield from _unknown(values, schema, schema, "")


def _unknown(values: Any, node: Schema, whole: Schema, path: str) -> Iterator[str]:
    properties = resolve(node, whole).get("properties")
    if not isinstance(values, Mapping) or properties is None:
        return
    for name, inner in values.items():
        here = f"{path}.{name}" if path else str(name)
        if name not in properties:
            yield f"values.yaml: {here} is not in values.schema.json"
        else:
            yield from _unknown(inner, properties[name], whole, here)


def _nodes(node: Schema, whole: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    resolved = resolve(node, whole)
    yield path, resolved
    for name, inner in resolved.get("properties", {}).items():
        yield from _nodes(inner, whole, f"{path}.{name}" if path else name)


def _default(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _readme(definition: Mapping[str, Any], about: str, found: Sequence[Row]) -> str:
    lines = [f"# {definition['name']}", "", "<!-- generated by `python -m pipelines.chart_pages`; do not edit -->", "", str(definition["description"]), ""]
    lines += [about.strip(), ""] if about.strip() else []
    if definition.get("kubeVersion"):
        lines += [f"Needs Kubernetes {definition['kubeVersion']}.", ""]
    lines += ["## Values", ""]
    groups: dict[str, list[Row]] = {}
    for row in found:
        groups.setdefault(row.path.split(".")[0] if "." in row.path else "", []).append(row)
    for group, members in groups.items():
        lines += [f"### {group}", ""] if group else []
        lines += ["| value | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{row.path}` | {_cell(row.type)} | {_cell(row.default)} | {_cell(row.description)} |" for row in members]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.chart_pages", description=__doc__)
    parser.add_argument("charts", nargs="*", type=Path, help="folders of charts (default: every one under charts/)")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a file is out of date")
    given = parser.parse_args(arguments)
    stale = []
    try:
        for chart in given.charts or sorted(file.parent for file in CHARTS.glob("*/Chart.yaml")):
            for file, content in pages(chart).items():
                if not file.is_file() or file.read_text() != content:
                    stale.append(file)
                    if not given.check:
                        file.write_text(content)
    except ChartFault as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for file in stale:
        print(f"{file}: {'out of date' if given.check else 'written'}")
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
