"""The 28 tests of the ML Test Score (Breck et al. 2017, "The ML Test Score: A Rubric for ML Production Readiness", Google pub46555).

A test is automated by pytest tests that carry its id, `@pytest.mark.ml_test("data-1")`, and by the quality checks of pipeline runs named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Section = Literal["data", "model", "infrastructure", "monitoring"]
SECTIONS: Final[dict[Section, str]] = {
    "data": "Features and data",
    "model": "Model development",
    "infrastructure": "Infrastructure",
    "monitoring": "Monitoring",
}


@dataclass(frozen=True)
class MlTest:
    """`checks`: quality checks (`components.contracts.usecase.QUALITY_CHECKS`) that have to have passed for what is in service."""

    id: str
    title: str
    checks: tuple[str, ...] = ()

    @property
    def section(self) -> Section:
        name = self.id.split("-")[0]
        assert name in SECTIONS
        return name  # type: ignore[return-value]


ML_TESTS: Final = (
    MlTest("data-1", "Feature expectations are captured in a schema", ("data_validation",)),
    MlTest("data-2", "All features are beneficial"),
    MlTest("data-3", "No feature's cost is too much", ("latency",)),
    MlTest("data-4", "Features adhere to meta-level requirements"),
    MlTest("data-5", "The data pipeline has appropriate privacy controls"),
    MlTest("data-6", "New features can be added quickly"),
    MlTest("data-7", "All input feature code is tested", ("leakage", "rows_preserved")),
    MlTest("model-1", "Model specs are reviewed and submitted"),
    MlTest("model-2", "Offline and online metrics correlate"),
    MlTest("model-3", "All hyperparameters have been tuned"),
    MlTest("model-4", "The impact of model staleness is known"),
    MlTest("model-5", "A simpler model is not better", ("baseline",)),
    MlTest("model-6", "Model quality is sufficient on important data slices", ("slices",)),
    MlTest("model-7", "The model is tested for considerations of inclusion"),
    MlTest("infrastructure-1", "Training is reproducible", ("reproducibility",)),
    MlTest("infrastructure-2", "Model specs are unit tested"),
    MlTest("infrastructure-3", "The ML pipeline is integration tested"),
    MlTest("infrastructure-4", "Model quality is validated before serving", ("release_integrity",)),
    MlTest("infrastructure-5", "The model is debuggable"),
    MlTest("infrastructure-6", "Models are canaried before serving"),
    MlTest("infrastructure-7", "Serving models can be rolled back"),
    MlTest("monitoring-1", "Dependency changes result in notification"),
    MlTest("monitoring-2", "Data invariants hold for inputs", ("request_validation",)),
    MlTest("monitoring-3", "Training and serving are not skewed"),
    MlTest("monitoring-4", "Models are not too stale"),
    MlTest("monitoring-5", "Models are numerically stable"),
    MlTest("monitoring-6", "Computing performance has not regressed", ("latency",)),
    MlTest("monitoring-7", "Prediction quality has not regressed"),
)
