"""What Kubernetes is told of the steps of an environment's pipelines: `manifests/environments/<environment>/pipelines.yaml`.

A use case may say otherwise in `manifests/environments/<environment>/<usecase>/pipelines.yaml`, which is laid over it key by key. Both files may
be absent. The endpoints stand in platform.yaml; this file says what the pods need to reach them, and how much of a node they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.contracts.durations import Duration
from components.contracts.errors import InvalidUseCase, Problem
from components.deployment.environment_file import ROOT, EnvironmentFile
from components.deployment.releases import ENVIRONMENTS_FOLDER

SETTINGS_FILE: Final = "pipelines.yaml"
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kKMGT]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class Section(BaseModel):
    """A part of the file; keys as in Kubernetes manifests: `nodeSelector`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class Amounts(Section):
    """`cpu`: 500m, 2. `memory`: 512Mi, 4Gi. Empty: not said."""

    cpu: Quantity | Literal[""] = ""
    memory: Quantity | Literal[""] = ""


class Toleration(Section):
    """As in a pod: the taints that a step's pod may be placed on."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Retries(Section):
    """How often a step that failed is tried again. `first_wait` grows by `factor` each time, a whole number: Argo takes no other."""

    number: int = Field(default=2, ge=0, le=10)
    first_wait: Duration = timedelta(seconds=30)
    factor: int = Field(default=2, ge=1, le=10)

    def waits(self) -> timedelta:
        """All waiting together."""
        return sum((self.first_wait * self.factor**attempt for attempt in range(self.number)), timedelta())


class StepSettings(Section):
    """One step's share of a node. `timeout` ends one attempt, the time in which the image is pulled included."""

    requests: Amounts = Amounts(cpu="250m", memory="512Mi")
    limits: Amounts = Amounts(memory="2Gi")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    retries: Retries = Retries()
    timeout: Duration = timedelta(hours=1)


class StepOverrides(Section):
    """What a step has otherwise than `defaults`; each key that is given replaces the whole key."""

    requests: Amounts | None = None
    limits: Amounts | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None
    retries: Retries | None = None
    timeout: Duration | None = None


class SecretVariables(Section):
    """Keys of a Secret that become environment variables of the same names. `steps`: those that get them; none means all.

    `optional`: the pod starts without the Secret, too.
    """

    name: Name
    keys: list[str] = Field(min_length=1)
    steps: list[str] = Field(default_factory=list)
    optional: bool = False


class ClaimMount(Section):
    """A PersistentVolumeClaim for platforms whose addresses are paths instead of s3://. `steps`: those that get it; none means all."""

    claim: Name
    mount_path: str = Field(pattern=r"^/[^:]+$")
    steps: list[str] = Field(default_factory=list)


# A breach of the data's contract is not cured by validating again, nor is a refused model by judging again.
_STEPS: Final[dict[str, StepOverrides]] = {
    "validate": StepOverrides(retries=Retries(number=0)),
    "judge": StepOverrides(retries=Retries(number=0)),
    "build_features": StepOverrides(requests=Amounts(cpu="500m", memory="1Gi"), limits=Amounts(memory="4Gi")),
    "tune": StepOverrides(requests=Amounts(cpu="1", memory="1Gi"), limits=Amounts(memory="4Gi"), timeout=timedelta(hours=6)),
    "train": StepOverrides(requests=Amounts(cpu="1", memory="1Gi"), limits=Amounts(memory="4Gi"), timeout=timedelta(hours=2)),
    "notify": StepOverrides(requests=Amounts(cpu="100m", memory="256Mi"), limits=Amounts(memory="512Mi"), timeout=timedelta(minutes=10)),
}


class KubernetesSettings(Section):
    """The whole file. Every key may be left out.

    `config_map`: holds the platform.json that the charts make; mounted at /etc/crispline. `user` and `group`: numeric, those of the images.
    `variables`: plain environment variables. `scratch`: size limit of the pods' /tmp. `run_timeout`: ends a whole run. `keep`: how long a
    finished run's Workflow and pods stay in Kubernetes; Kubeflow Pipelines itself keeps the run.
    """

    config_map: Name = "crispline-platform"
    user: int = Field(default=10001, ge=1)
    group: int = Field(default=0, ge=0)
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: list[Name] = Field(default_factory=list)
    variables: dict[str, str] = Field(default_factory=dict)
    secrets: list[SecretVariables] = Field(default_factory=list)
    volumes: list[ClaimMount] = Field(default_factory=list)
    scratch: Quantity | Literal[""] = ""
    run_timeout: Duration = timedelta(hours=12)
    keep: Duration = timedelta(days=7)
    defaults: StepSettings = StepSettings()
    steps: dict[str, StepOverrides] = Field(default_factory=dict)

    def step(self, name: str) -> StepSettings:
        """`defaults`, what crispline itself knows of a step, what the file says of it; later ones win key by key."""
        given = {
            key: value
            for source in (_STEPS.get(name), self.steps.get(name))
            if source is not None
            for key, value in ((key, getattr(source, key)) for key in StepOverrides.model_fields)
            if value is not None
        }
        return self.defaults.model_copy(update=given)


def settings_path(environment: str, usecase: str = "", root: Path = ROOT) -> Path:
    folder = root / ENVIRONMENTS_FOLDER / environment
    return (folder / usecase if usecase else folder) / SETTINGS_FILE


def load_settings(environment: EnvironmentFile, usecase: str, known_steps: Sequence[str] = (), root: Path = ROOT) -> KubernetesSettings:
    """The settings of a use case's pipelines in an environment, the object store's address and Secret of platform.yaml among them.

    `known_steps`: names that `steps` may speak of; empty for any. Raises InvalidUseCase with file, key and remedy.
    """
    merged: dict[str, Any] = {}
    for file in (settings_path(environment.name, root=root), settings_path(environment.name, usecase, root)):
        if file.is_file():
            merged = _laid_over(merged, _document(file))
            _validated(file, merged, known_steps)
    return with_object_store(_validated(settings_path(environment.name, root=root), merged, known_steps), environment)


def with_object_store(settings: KubernetesSettings, environment: EnvironmentFile) -> KubernetesSettings:
    """The variables by which the steps find the object store, where its addresses are s3://; a variable that the file sets stays."""
    store = environment.object_store
    found = {"AWS_REGION": store.region, "AWS_DEFAULT_REGION": store.region} if store.endpoint or store.existing_secret else {}
    if store.endpoint:
        found["AWS_ENDPOINT_URL"] = store.endpoint
        found |= {"AWS_ALLOW_HTTP": "true"} if store.endpoint.startswith("http://") else {}
    secrets = list(settings.secrets)
    if store.existing_secret and all(secret.name != store.existing_secret for secret in secrets):
        secrets.insert(0, SecretVariables(name=store.existing_secret, keys=["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]))
    return settings.model_copy(update={"variables": {**found, **settings.variables}, "secrets": secrets})


def _document(file: Path) -> dict[str, Any]:
    try:
        document = YAML(typ="safe").load(file.read_text())
    except YAMLError as error:
        raise InvalidUseCase([Problem(file, 0, "yaml", str(error), "correct the YAML syntax")]) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidUseCase([Problem(file, 1, SETTINGS_FILE, "is not a mapping", "see docs/how-to/run-on-kubeflow.md")])
    return document


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _laid_over(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _validated(file: Path, document: Mapping[str, Any], known_steps: Sequence[str]) -> KubernetesSettings:
    try:
        found = KubernetesSettings.model_validate(document)
    except ValidationError as error:
        remedy = "see docs/how-to/run-on-kubeflow.md"
        problems = [Problem(file, 0, ".".join(map(str, each["loc"])), f"{each['msg']} (found {each['input']!r})", remedy) for each in error.errors()]
        raise InvalidUseCase(problems) from error
    named = [*(secret.steps for secret in found.secrets), *(volume.steps for volume in found.volumes)]
    spoken_of = {*found.steps, *(step for steps in named for step in steps)}
    unknown = sorted(spoken_of - set(known_steps)) if known_steps else []
    if unknown:
        said = [Problem(file, 0, f"steps.{name}", "there is no such step", f"there are {', '.join(sorted(known_steps))}") for name in unknown]
        raise InvalidUseCase(said)
    return found
