from __future__ import annotations

import pytest

from components.contracts.loading import LoadedUseCase, load_usecase


@pytest.fixture(scope="session")
def flights() -> LoadedUseCase:
    return load_usecase("flights")
