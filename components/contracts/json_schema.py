"""The JSON Schema of usecase.yaml, generated from the models, for completion and checking in editors.

`python -m components.contracts.json_schema` writes docs/reference/usecase.schema.json; the first line of a usecase.yaml names that file.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from components.contracts.usecase import QUALITY_CHECKS, UseCase

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "usecase.schema.json"


class _AsWritten(GenerateJsonSchema):
    """Durations and moments as a person writes them, not as ISO 8601 durations."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:  # noqa: ARG002 (the signature of the base class)
        return {"type": "string", "pattern": r"^\d+[smhdw]$", "examples": ["90s", "15m", "2h", "14d", "2w"]}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"type": "string", "format": "date-time", "examples": ["2013-04-01T00:00:00Z"]}


def usecase_schema() -> dict[str, object]:
    """The schema as a JSON object. What needs several sections (a gate on an unknown slice, say) is left to `crispline validate`."""
    schema = UseCase.model_json_schema(schema_generator=_AsWritten)
    schema["$defs"]["Risk"]["properties"]["check"]["enum"] = list(QUALITY_CHECKS)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "usecase.yaml of crispline",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def schema_text() -> str:
    return json.dumps(usecase_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.parent.mkdir(parents=True, exist_ok=True)
    SCHEMA_FILE.write_text(schema_text())
