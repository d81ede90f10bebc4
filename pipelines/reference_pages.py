"""The reference pages of docs/reference/ that are generated from the code: usecase, features, records, events, cli.

`python -m pipelines.reference_pages` writes them; a test fails when a committed page is not what the code says.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

from components.contracts import artifacts, events, features, records, serving, usecase
from components.monitoring import feedback
from pipelines.reference_meanings import EVENTS, FEATURES, HEADERS, KINDS, RECORDS, USECASE
from pipelines.reference_tables import docstring, keys_table, table, type_in_words

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
COMMAND = "python -m pipelines.reference_pages"
REQUEST_LOG = ROOT / "components" / "model_server" / "request_log.py"

_VALUES = """Values: a *duration* is a whole number and a unit (`90s`, `15m`, `2h`, `14d`, `2w`); a *moment* is quoted and has a time zone
(`'2013-04-01T00:00:00Z'`); a *share* is a number from 0 to 1; a *name* starts with a small letter and holds small letters, digits and `_`.
An unknown key is an error."""


def usecase_page() -> str:
    """Every key of usecase.yaml, section by section, each section's parts below it."""
    parts = [_head("usecase.yaml"), "What a team writes about its use case. `crispline validate` names every breach with file, line, key and remedy.", _VALUES]
    parts.append("## UseCase\n\nThe top level.\n\n" + keys_table(usecase.UseCase, USECASE))
    written: set[type[BaseModel]] = {usecase.UseCase}
    for field in usecase.UseCase.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts.extend(_with_parts(field.annotation, USECASE, written))
    parts.append(
        "## Quality checks\n\nNames that `risks[].check` may take. The report sets each risk beside its check's records ([evidence](../explanation/crisp-ml-q.md#evidence)).\n"
    )
    parts.append(table(("name", "what runs"), [(f"`{name}`", text) for name, text in usecase.QUALITY_CHECKS.items()]))
    parts.append(
        "## What is checked beyond single keys\n\n"
        "Names that refer to each other (groups, columns, slices, metrics, environments), lengths of time that exclude each other, and "
        "features that would not be known in time: `components/contracts/consistency.py`."
    )
    return _page(parts)


def features_page() -> str:
    """The language of features.py."""
    parts = [_head("features.py"), docstring(features), "The module ends with `FEATURES = FeatureSet(...)`. In Python, durations are `timedelta`s."]
    for model in (features.FeatureSet, features.FeatureView, features.Aggregate, features.Latest):
        parts.append(f"## {model.__name__}\n\n{docstring(model)}\n\n" + keys_table(model, FEATURES))
        derived = [(f"`{name}`", docstring(each)) for name, each in vars(model).items() if isinstance(each, property) and each.__doc__]
        if derived:
            parts.append("Derived from it:\n\n" + table(("property", "meaning"), derived))
    return _page(parts)


def records_page() -> str:
    """Record, lineage, kinds, and what the steps hand to each other."""
    parts = [_head("Records and artifacts"), docstring(records)]
    parts.append("## Record\n\n" + keys_table(records.Record, RECORDS))
    parts.append("## Lineage\n\n" + docstring(records.Lineage) + "\n\n" + keys_table(records.Lineage, RECORDS, required=False))
    kinds = get_args(records.RecordKind)
    parts.append("## Kinds\n\n" + table(("kind", "what it says", "outcomes"), [(f"`{kind}`", *KINDS[kind]) for kind in kinds]))
    parts.append("## Artifacts\n\n" + docstring(artifacts))
    for model in _models_of(artifacts):
        said = docstring(model)
        rows = [(f"`{name}`", type_in_words(hint)) for name, hint in inspect.get_annotations(model, eval_str=True).items() if name != "model_config"]
        parts.append(f"### {model.__name__}\n\n{said}\n\n" + table(("key", "type"), rows))
    return _page(parts)


def events_page() -> str:
    """Events between server, sidecar and trigger."""
    kinds = [
        (f"`{events.INFERENCE_REQUEST}`", "executor to sidecar", "the request's body as it came"),
        (f"`{events.INFERENCE_RESPONSE}`", "executor to sidecar", "the answer's body; refused requests have none"),
        (f"`{events.INFERENCE_FEEDBACK}`", "executor to sidecar", "the feedback call's body: [how to give feedback](../how-to/give-feedback.md)"),
        (f"`{events.ALERT}`", "sidecar to trigger", "[Alert](#alert)"),
        (f"`{events.PERFORMANCE}`", "monitoring pipeline to trigger", "[Performance](#performance)"),
        (f"`{events.RUN_ENDED}`", "a run on Kubeflow Pipelines to `notifications_url`", "the [record](records.md) of kind `run`"),
    ]
    parts = [_head("Events"), "CloudEvents 1.0 over HTTP, one POST each, in binary content mode: attributes are headers, the body is the payload."]
    parts.append("## Types\n\n" + table(("`ce-type`", "from and to", "body"), kinds))
    headers = table(("header", "value"), [(f"`{name}`", HEADERS[name]) for name in executor_headers()])
    parts.append(
        "## Headers of the executor's events\n\n" + headers + "\nThe executor sends without retry and loses events when its queue is full. A gap in "
        "[`sequence`](#predictresponse) shows it. Calls with the header `Seldon-Skip-Logging` leave no event. The sidecar answers 200 once the "
        "event is on disk, 200 with `ignored` for one that is not its own, 400 for what is no event, 413 for a body that is too large, 503 when "
        "it cannot store."
    )
    parts.append(
        "## Headers of alerts and performance\n\n`ce-id` (the payload's `id`), `ce-source`, `ce-type`, `ce-specversion: 1.0`, and "
        "`content-type: application/json`. The trigger (`POST /events`) also reads structured mode (`application/cloudevents+json`). It answers "
        "202 with `duplicate`, 400 for what is no CloudEvent, 413 above 1 MiB, 422 for an unknown type, a payload that breaks the contract, or "
        "another use case's event."
    )
    for model in (events.Alert, events.Performance, events.MixExpectation, events.Trial):
        parts.append(f"## {model.__name__}\n\n{docstring(model)}\n\n" + keys_table(model, EVENTS))
    parts.append('## The answer\n\nBody of a response event: `{"jsonData": PredictResponse, "meta": {"puid": request id}}`.')
    for answer in (serving.PredictResponse, serving.ModelInfo, serving.Prediction):
        parts.append(f"### {answer.__name__}\n\n{docstring(answer)}\n\n".replace("\n\n\n\n", "\n\n") + keys_table(answer, EVENTS, required=False))
    parts.append('## Feedback\n\nBody of a feedback event: `{"truth": {"jsonData": {"feedback": [Feedback, ...], "labels": [FeedbackLabel, ...]}}}`.')
    for word in (serving.Feedback, feedback.FeedbackLabel):
        title = "" if word is serving.Feedback else f"### {word.__name__}\n\n"
        parts.append(title + f"{docstring(word)}\n\n" + keys_table(word, EVENTS))
    return _page(parts)


def cli_page() -> str:
    """Every command with its options, from the application that is run."""
    from pipelines.cli import app

    parts = [_head("crispline, the command"), "Moments are a day (`2013-04-01`, its start in UTC) or RFC 3339. `-h` shows the same on the terminal."]
    parts.extend(_commands(typer.main.get_command(app), "crispline"))
    codes = [
        ("0", "done; also when gates refused a model, which is a result"),
        ("1", "refused; the message says what to do"),
        ("2", "wrong usage, or a use case that breaks the contract"),
        ("3", "data that break their contract, outside of a pipeline's step"),
        ("4", "stored content that does not match its hash, outside of a pipeline's step"),
        ("5", "a pipeline's step failed, for whatever reason; the message holds it"),
        ("130", "interrupted"),
    ]
    parts.append("## Exit codes\n\n" + table(("code", "meaning"), codes))
    return _page(parts)


PAGES: Mapping[str, Callable[[], str]] = {
    "usecase.md": usecase_page,
    "features.md": features_page,
    "records.md": records_page,
    "events.md": events_page,
    "cli.md": cli_page,
}


def executor_headers() -> list[str]:
    """The headers that the executor's logger sets, in order, read from its source: this environment lacks the packages that it imports."""
    for node in ast.walk(ast.parse(REQUEST_LOG.read_text())):
        if isinstance(node, ast.Dict) and any(isinstance(key, ast.Constant) and key.value == "ce-specversion" for key in node.keys):
            return [str(key.value) for key in node.keys if isinstance(key, ast.Constant)]
    raise LookupError(f"{REQUEST_LOG} has no literal of the headers any more")


def _commands(command: Any, path: str) -> list[str]:
    found = []
    for name, each in getattr(command, "commands", {}).items():
        inner = getattr(each, "commands", None)
        found.extend(_commands(each, f"{path} {name}") if inner else [_command(each, f"{path} {name}")])
    return found


def _command(command: Any, path: str) -> str:
    rows = []
    for parameter in command.params:
        option = parameter.opts[0].startswith("-")
        if parameter.name == "help":
            continue
        name = ", ".join(f"`{each}`" for each in parameter.opts) if option else f"`{parameter.name.upper()}`"
        rows.append((name, _default(parameter), _plain(parameter.help or "")))
    text = f"## {path}\n\n{_plain(command.help or '')}\n"
    if rows:
        text += "\n" + table(("option or argument", "default", "meaning"), rows)
    examples = re.split(r"\s+\|\s+", re.sub(r"^Examples?:\s*", "", command.epilog)) if command.epilog and "jq" not in command.epilog else []
    examples = examples or ([re.sub(r"^Examples?:\s*", "", command.epilog)] if command.epilog else [])
    return text + ("\n```\n" + "\n".join(examples) + "\n```\n" if examples else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, "", [], ()):
        return ""
    return f"`{str(parameter.default).lower() if isinstance(parameter.default, bool) else parameter.default}`"


def _plain(text: str) -> str:
    """Help text without the terminal's markup: `[dim]default: all[/dim]` as `(default: all)`; `<name>` is not to be taken for HTML."""
    return re.sub(r"\s+", " ", re.sub(r"\[dim\](.*?)\[/dim\]", r"(\1)", text)).strip().replace("<", "\\<")


def _with_parts(model: type[BaseModel], meanings: Mapping[str, str], written: set[type[BaseModel]], depth: int = 2) -> list[str]:
    """The model's table, then those of the models in it that have none yet."""
    if model in written:
        return []
    written.add(model)
    said = docstring(model)
    own = said if said and said != docstring(BaseModel) and model.__doc__ else ""
    parts = [f"{'#' * depth} {model.__name__}\n\n" + (own + "\n\n" if own else "") + keys_table(model, meanings)]
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            parts.extend(_with_parts(inner, meanings, written, 3))
    return parts


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _models_of(module: Any) -> list[type[BaseModel]]:
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ == module.__name__]
    return [each for each in found if each.model_fields]


def _head(title: str) -> str:
    return f"# {title}\n\n<!-- generated by `{COMMAND}`; do not edit -->"


def _page(parts: list[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


if __name__ == "__main__":
    main()
