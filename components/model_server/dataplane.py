"""The data plane: load and verify a release, check requests, look features up, predict, explain. It knows nothing of HTTP or of a clock.

A front end (Seldon's now; the Open Inference Protocol could follow) turns its protocol into a PredictRequest and back; nothing here changes.
The answer carries the features that the model received: see docs/adr/0003-resolved-features-in-the-answer.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.contracts.artifacts import ReleaseManifest
from components.contracts.errors import IntegrityError
from components.contracts.serving import CONTRACT_FILE, FeatureValue, Instance, ModelInfo, Prediction, PredictRequest, PredictResponse, ServingContract
from components.deployment.bundle import open_bundle
from components.model_server.feature_client import FeatureClient
from components.model_server.lookup import Lookup, Resolved
from components.model_server.numbering import AnswerNumbers
from components.model_server.requests import check_request
from components.model_server.scoring import ScoringModel


@dataclass(frozen=True)
class DataPlane:
    """One verified release, ready to answer. Safe to use from several threads."""

    release: str
    manifest: ReleaseManifest
    contract: ServingContract
    model: ScoringModel
    lookup: Lookup
    instance: str
    numbers: AnswerNumbers

    @classmethod
    def load(cls, folder: Path, features: FeatureClient | None, instance: str) -> DataPlane:
        """Read a fetched release. `features` None: requests by key are treated as when the feature server fails.

        Raises IntegrityError when a file does not match its hash, or the release's parts do not belong together.
        """
        release, manifest = open_bundle(folder)
        contract = ServingContract.model_validate_json((Path(folder) / CONTRACT_FILE).read_text())
        model = ScoringModel.load(Path(folder))
        for what, one, other in (
            ("columns", model.feature_names, contract.feature_set.feature_names),
            ("decision threshold", model.decision_threshold, contract.decision_threshold),
            ("use case", manifest.usecase, contract.usecase),
            ("feature set", manifest.feature_set, contract.feature_set.definition_hash),
            ("model version", manifest.model_version, model.manifest.version),
        ):
            if one != other:
                raise IntegrityError(f"release {release[:12]}: its model, contract and manifest name different values for {what} ({one!r}, {other!r})")
        return cls(release, manifest, contract, model, Lookup.of(contract, features), instance, AnswerNumbers())

    def warm_up(self) -> None:
        """Predict and explain one row without features, so that the first caller does not pay for lazy loading; takes no number."""
        moment = datetime(1970, 1, 1, tzinfo=UTC)
        instance = Instance(entity="warm-up", prediction_moment=moment, event_time=moment + timedelta(seconds=self.contract.lead_seconds))
        empty = Resolved(instance, dict.fromkeys(self.model.feature_names), {}, ())
        self._predictions([empty], "warm-up", explain=True)

    def predict(self, request: PredictRequest, request_id: str) -> PredictResponse:
        """Answer every row, in order; row n has the prediction id `<request_id>-<n>`.

        Raises a RequestRefused that names the field; such a request takes no sequence number.
        """
        rows = self.lookup.resolve(check_request(request, self.contract))
        predictions = self._predictions(rows, request_id, request.explain)
        return PredictResponse(predictions=predictions, model=self.info, instance=self.instance, sequence=self.numbers.take())

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            usecase=self.contract.usecase,
            model_version=self.manifest.model_version,
            release=self.release,
            feature_set=self.manifest.feature_set,
            decision_threshold=self.contract.decision_threshold,
        )

    def _predictions(self, rows: Sequence[Resolved], request_id: str, explain: bool) -> list[Prediction]:
        features = [row.features for row in rows]
        probabilities = self.model.predict_rows(features)
        decisions = self.model.decide(probabilities)
        contributions = self._contributions(features) if explain else None
        # The parts are checked already; building without a second validation halves the time of a large batch.
        return [
            Prediction.model_construct(
                id=f"{request_id}-{number}",
                entity=row.instance.entity,
                prediction_moment=row.instance.prediction_moment,
                event_time=row.instance.event_time,
                probability=float(probabilities[number]),
                decision=bool(decisions[number]),
                features=row.features,
                feature_times=row.feature_times,
                warnings=[*row.warnings, *self.model.warnings_of_row(row.features)],
                contributions=None if contributions is None else contributions[number],
            )
            for number, row in enumerate(rows)
        ]

    def _contributions(self, features: Sequence[dict[str, FeatureValue]]) -> list[dict[str, float]]:
        frame = self.model.contributions_of_rows(features)
        return [{str(name): float(value) for name, value in record.items()} for record in frame.to_dict("records")]
