"""What the steps hand to each other: metadata of data versions, datasets, models and release bundles."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.contracts.usecase import Moment


class Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableVersion(Artifact):
    """One Delta table at one version. `content_hash` is over the rows in key order, not over the files."""

    table: str
    version: int = Field(ge=0)
    rows: int = Field(ge=0)
    content_hash: str


class DataVersion(Artifact):
    """All source tables at recorded versions. `as_of`: nothing in it became known later. `id` is derived from the tables' content hashes."""

    id: str
    usecase: str
    as_of: Moment
    tables: dict[str, TableVersion]


class DatasetManifest(Artifact):
    """A training frame: one parquet file with columns `entity`, `prediction_moment`, `event_time`, features, `label`, `outcome`, `split`.

    `split` is train, validation, embargo or test. `content_hash` covers the rows in key order.
    """

    id: str
    usecase: str
    data_version: DataVersion
    feature_set: str
    rows: int
    rows_by_split: dict[str, int]
    label_share_by_split: dict[str, float]
    outcomes: dict[str, int]
    boundaries: dict[str, Moment]
    content_hash: str


class CodeVersion(Artifact):
    """`commit` is empty outside of a Git work tree; `tree_hash` covers components/, pipelines/ and the use case."""

    commit: str
    dirty: bool
    tree_hash: str
    lock_hash: str


class ModelManifest(Artifact):
    """A trained model: `model.ubj`, `calibrator.json`, `model.json` (this manifest) and `training.json` in one folder."""

    version: str
    algorithm: str
    parameters: dict[str, float | int | str]
    best_iteration: int
    seed: int
    dataset: str
    feature_names: tuple[str, ...]
    categorical: dict[str, tuple[str, ...]]
    decision_threshold: float
    code: CodeVersion
    tracking_run: str = ""


class ReleaseManifest(Artifact):
    """The immutable release bundle: `files` maps a relative name to the SHA-256 of its content; the release's id is the hash of this manifest.

    Files: model.ubj, calibrator.json, model.json (ModelManifest), usecase.yaml, features.json (FeatureSet), serving.json (ServingContract),
    detectors/*, reference.parquet (reference window: features, prediction, label), reference.json, gates.json, evaluation.json,
    model_card.html.
    """

    usecase: str
    model_version: str
    data_version: str
    dataset: str
    feature_set: str
    feature_views: tuple[str, ...]
    gates_record: str
    gates_passed: bool
    cause: str
    created: Moment
    files: dict[str, str]


class ImagePin(Artifact):
    """One image, whatever its tag says: `sha256:` and 64 hexadecimal digits, as registries name a manifest."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Release(Artifact):
    """What a promotion commits for one environment and use case (`release.json`): a pointer, nothing that can change under it.

    The file is Helm values of charts/model-server, too. `evaluation`: the evaluation's record, which the gates judged. `images`: by name the
    digest of the image that serves this release; where a name is absent, the values of the environment decide. `source`: the environment
    it was promoted from; empty where it was built.
    """

    usecase: str
    environment: str
    release: str
    model_version: str
    data_version: str
    gates_record: str
    evaluation: str = ""
    images: dict[Literal["serving", "monitoring"], ImagePin] = Field(default_factory=dict)
    source: str = ""
    cause: str
    promoted: Moment
    previous: str = ""
