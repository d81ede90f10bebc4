from __future__ import annotations

import pytest

from components.contracts.loading import LoadedUseCase, load_usecase


@pytest.fixture(scope="session")
def flights() -> LoadedUseCase:
    """The flights use case with few, short trials: these tests are about behaviour, not about the best model."""
    loaded = load_usecase("flights")
    model = loaded.config.model.model_copy(update={"maximum_rounds": 40, "early_stopping_rounds": 8, "budget_trials": 4})
    return LoadedUseCase(loaded.folder, loaded.config.model_copy(update={"model": model}), loaded.features)
