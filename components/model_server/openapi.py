"""An OpenAPI 3.1 description of the server, generated from the message models and the release's own contract."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from components.contracts.artifacts import ReleaseManifest
from components.contracts.serving import PredictRequest, PredictResponse, ServingContract
from components.contracts.usecase import Column
from components.model_server.statuses import Refusal

PREDICTION_ROUTES = ("/api/v1.0/predictions", "/api/v0.1/predictions", "/predict")
_TYPES = {"integer": "integer", "float": "number", "boolean": "boolean"}


def describe(contract: ServingContract, manifest: ReleaseManifest) -> dict[str, Any]:
    """The document as plain JSON values. Features, keys and fields are spelled out with type, unit, range and nullability."""
    _, definitions = models_json_schema(
        [(PredictRequest, "validation"), (PredictResponse, "serialization"), (Refusal, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = definitions["$defs"]
    features = contract.feature_set
    schemas["Features"] = _object(features.feature_names, contract)
    schemas["Keys"] = _object(features.join_keys, contract, optional=tuple(key for key in features.join_keys if contract.columns[key].nullable), null=False)
    schemas["Fields"] = _object(features.request_fields, contract)
    properties = schemas["Instance"]["properties"]
    for name in ("features", "keys", "fields"):
        properties[name] = {"$ref": f"#/components/schemas/{name.capitalize()}"}
    schemas["Instance"]["oneOf"] = [{"required": ["features"]}, {"required": ["keys", "fields"]}]
    schemas["Instance"]["description"] = "One thing to predict: `features` complete, or `keys` with `fields`; the rest is then looked up."
    schemas["PredictRequest"]["properties"]["instances"]["maxItems"] = contract.maximum_batch_rows
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{contract.usecase}: predictions",
            "version": manifest.model_version,
            "description": f"Bodies of at most {contract.maximum_body_bytes} bytes, batches of at most {contract.maximum_batch_rows} rows.",
        },
        "paths": {route: {"post": _prediction(route)} for route in PREDICTION_ROUTES} | _operations(),
        "components": {"schemas": schemas},
    }


def _prediction(route: str) -> dict[str, Any]:
    def envelope(schema: str) -> dict[str, Any]:
        meta = {"type": "object", "properties": {"puid": {"type": "string"}}}
        body = {"type": "object", "required": ["jsonData"], "properties": {"jsonData": {"$ref": f"#/components/schemas/{schema}"}, "meta": meta}}
        return {"application/json": {"schema": body}}

    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    reasons = {
        "400": "the body is not JSON",
        "413": "too large a body or batch",
        "422": "the contract is broken; `field` names where",
        "503": "not ready, or features are unavailable",
    }
    return {
        "operationId": "predict" + route.replace("/", "_").replace(".", "_"),
        "summary": "Predict one or more rows",
        "parameters": [{"name": "Seldon-Puid", "in": "header", "required": False, "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,128}$"}}],
        "requestBody": {"required": True, "content": envelope("PredictRequest")},
        "responses": {"200": {"description": "one answer for each row, in order", "content": envelope("PredictResponse")}}
        | {code: {"description": text, "content": refusal} for code, text in reasons.items()},
    }


def _operations() -> dict[str, Any]:
    texts = {
        "/health/live": "The process answers",
        "/health/ready": "The model is warm (503 until then)",
        "/metrics": "Prometheus metrics",
        "/openapi.json": "This document",
    }
    return {
        path: {"get": {"operationId": path.strip("/").replace("/", "_").replace(".", "_"), "summary": text, "responses": {"200": {"description": text}}}}
        for path, text in texts.items()
    }


def _object(names: tuple[str, ...], contract: ServingContract, optional: tuple[str, ...] = (), null: bool = True) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in names if name not in optional],
        "properties": {name: _value(contract.columns[name], contract.categorical.get(name), null) for name in names},
    }


def _value(column: Column, categories: tuple[str, ...] | None, null: bool) -> dict[str, Any]:
    """`x-range` and `x-categories`, not `minimum` and `enum`: a value outside is answered with a warning, not refused."""
    kind = _TYPES.get(column.type, "string")
    schema: dict[str, Any] = {"type": [kind, "null"] if column.nullable and null else kind, "description": column.description}
    schema |= {"x-unit": column.unit} if column.unit else {}
    schema |= {"x-range": list(column.range)} if column.range else {}
    return schema | ({"x-categories": list(categories)} if categories else {})
