"""The steps at their edge: read artifacts, parameters and the platform, call the implementation."""

from __future__ import annotations

from pathlib import Path

from components.contracts.artifacts import DatasetManifest
from components.contracts.durations import parse_moment
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Record


def run_register(usecase: str, *, model: Path, tracked: Path, gates: Path, as_of: str) -> str:
    """Register; returns MLflow's version number. Raises CrisplineError when the tracked model is not the one given."""
    from components.contracts.artifacts import ModelManifest
    from components.contracts.errors import CrisplineError
    from components.deployment.registry import register
    from components.model_engineering.tracking import Tracked

    description = Tracked.model_validate_json(tracked.read_text())
    trained = ModelManifest.model_validate_json((model / "model.json").read_text())
    if description.model_version != trained.version:
        raise CrisplineError(f"tracking run {description.run_id} logged model {description.model_version}, not {trained.version}; register what one run made")
    record = Record.model_validate_json(gates.read_text())
    name = load_usecase(usecase).name
    return register(Platform.load(), name, description.run_id, description.model_uri, trained.version, record, parse_moment(as_of))


def run_bundle(usecase: str, *, manifest: Path, model: Path, evaluation: Path, gates: Path, detectors: Path, model_card: Path, cause: str, as_of: str) -> str:
    """Assemble the release; returns its id."""
    from components.deployment.assemble import assemble

    return assemble(
        Platform.load(),
        load_usecase(usecase),
        manifest=DatasetManifest.model_validate_json(manifest.read_text()),
        model=model,
        evaluation=evaluation,
        gates=gates,
        detectors=detectors,
        model_card=model_card,
        cause=cause,
        as_of=parse_moment(as_of),
    )


def run_promote(usecase: str, *, environment: str, release: str, cause: str, as_of: str) -> str:
    """Promote, and crown the model in the registry once the release is in force; returns the commit."""
    from components.deployment.promotion import current_release, promote
    from components.deployment.registry import crown

    platform, name = Platform.load(), load_usecase(usecase).name
    commit = promote(platform, name, environment, release, cause, parse_moment(as_of))
    current = current_release(platform, name, environment)
    if current is not None and current.release == release:
        crown(platform, name, current.model_version)
    return commit


def run_rollback(usecase: str, *, environment: str, to: str, reason: str, as_of: str) -> str:
    """Roll back and move the registry's champion along; returns the commit."""
    from components.deployment.registry import crown
    from components.deployment.rollback import roll_back

    platform, name = Platform.load(), load_usecase(usecase).name
    deployed = roll_back(platform, name, environment, to, reason, parse_moment(as_of))
    crown(platform, name, deployed.release.model_version)
    return deployed.commit


def run_current_champion(usecase: str, *, environment: str, expected: str = "") -> str:
    """The id of the release in force; empty before the first promotion. Another one than `expected` is said in the log, and counts: it is in force."""
    from components.deployment.releases import current_release

    release = current_release(Platform.load(), load_usecase(usecase).name, environment)
    found = release.release if release else ""
    if expected and found != expected:
        print(f"the champion was {expected} when the run was asked for; in force now is {found or 'none'}, which the challenger is compared with")
    return found


def run_claim(usecase: str, *, cause: str, run: str) -> str:
    """`effective` for the one run of a cause, `duplicate` for any other (which must then do nothing)."""
    from components.monitoring.retrain_trigger.effective_run import claim_effective

    return claim_effective(Platform.load(), cause, run, load_usecase(usecase).name)


def run_list_shards(dataset: Path, shard_rows: int) -> list[int]:
    """The first row of each shard, in order; of an empty dataset none. Raises CrisplineError for a shard without rows."""
    from components.model_server.batch import shard_starts

    return shard_starts(dataset, shard_rows)


def run_score_batch(usecase: str, *, environment: str, dataset: Path, predictions: Path, release: str = "", first_row: int = 0, shard_rows: int = 0) -> None:
    """Score rows of a frame with `release`, or with the one in force; writes the answers as Parquet and into the prediction log."""
    from components.model_server.batch import Shard, score_batch

    shard = Shard(first_row, shard_rows) if shard_rows else None
    score_batch(Platform.load(), load_usecase(usecase), environment, dataset, predictions, release=release, shard=shard)
