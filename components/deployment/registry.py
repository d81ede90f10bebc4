"""The model registry: MLflow's registered models, with the alias `challenger` at registration and `champion` at promotion.

The registry is for people and for lineage; what is served comes from the release bundle alone, so no environment reads another one's MLflow.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION = "challenger", "champion"
VERSION_TAG, GATES_TAG = "crispline.model_version", "crispline.gates_record"


def register(platform: Platform, usecase: str, run_id: str, model_uri: str, model_version: str, gates: Record, as_of: datetime) -> str:
    """Register the logged model of a tracking run and give it the alias `challenger`; return MLflow's version number.

    The same run and model give the version that is there already. `model_uri`: MLflow's URI of the logged model. Raises CrisplineError when
    the gates did not pass or are about another model.
    """
    if gates.outcome != "passed":
        raise CrisplineError(f"model {model_version} did not pass its gates ({gates.id}): {gates.reason}")
    if gates.lineage.model_version and gates.lineage.model_version != model_version:
        raise CrisplineError(f"the gates record {gates.id} is about model {gates.lineage.model_version}, not {model_version}")
    client = tracking_client(platform)
    _create_model(client, usecase)
    version = find_version(client, usecase, model_version, run_id)
    if version is None:
        tags = {VERSION_TAG: model_version, GATES_TAG: gates.id, "crispline.cause": gates.lineage.cause, "crispline.as_of": format_moment(as_of)}
        version = client.create_model_version(usecase, model_uri, run_id=run_id, tags=tags, description=gates.reason)
    client.set_registered_model_alias(usecase, CHALLENGER, version.version)
    number, id, store = str(version.version), record_id("registration", usecase, run_id, model_version), RecordStore(platform.records_uri)
    if store.find("registration", id) is not None:
        return number
    store.append(
        Record(
            kind="registration",
            id=id,
            usecase=usecase,
            event_time=as_of,
            outcome="registered",
            reason=f"Model {model_version} is version {number} of the registered model {usecase}.",
            details={"registry_version": number, "gates_record": gates.id, "model_uri": model_uri},
            lineage=Lineage(
                data_version=gates.lineage.data_version, dataset=gates.lineage.dataset, model_version=model_version, run=run_id, cause=gates.lineage.cause
            ),
        )
    )
    return number


def crown(platform: Platform, usecase: str, model_version: str) -> str:
    """Give the registered version of a model the alias `champion`, at promotion and at rollback; return its number.

    A challenger that becomes champion is challenger no longer. Raises CrisplineError when the model was never registered.
    """
    from mlflow.exceptions import MlflowException

    client = tracking_client(platform)
    version = find_version(client, usecase, model_version)
    if version is None:
        raise CrisplineError(f"model {model_version} of {usecase} is not in the registry; register it before it is promoted")
    client.set_registered_model_alias(usecase, CHAMPION, version.version)
    try:
        challenger = client.get_model_version_by_alias(usecase, CHALLENGER)
    except MlflowException:
        challenger = None
    if challenger is not None and challenger.version == version.version:
        client.delete_registered_model_alias(usecase, CHALLENGER)
    return str(version.version)


def version_with_alias(platform: Platform, usecase: str, alias: str) -> str:
    """crispline's model version that holds an alias; empty when none does."""
    from mlflow.exceptions import MlflowException

    try:
        return str(tracking_client(platform).get_model_version_by_alias(usecase, alias).tags[VERSION_TAG])
    except MlflowException:
        return ""


def find_version(client: MlflowClient, usecase: str, model_version: str, run_id: str = "") -> ModelVersion | None:
    """The newest registered version of a model; with `run_id`, only one that this tracking run logged."""
    found = client.search_model_versions(f"name = '{usecase}' and tags.`{VERSION_TAG}` = '{model_version}'")
    versions = [version for version in found if not run_id or version.run_id == run_id]
    return max(versions, key=lambda version: int(version.version), default=None)


def _create_model(client: MlflowClient, usecase: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(usecase, description=f"Models of the use case {usecase}; the release bundle is what is served.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def tracking_client(platform: Platform) -> MlflowClient:
    """A client of the platform's tracking server, which is its registry, too."""
    from components.model_engineering.tracking import quiet_mlflow

    mlflow: Any = quiet_mlflow()
    mlflow.set_tracking_uri(platform.tracking_uri)
    client: MlflowClient = mlflow.MlflowClient(tracking_uri=platform.tracking_uri, registry_uri=platform.tracking_uri)
    return client
