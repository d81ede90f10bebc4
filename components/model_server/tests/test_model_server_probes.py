"""The battery of malformed requests: a contract that refuses them passes, one that lets something through is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.contracts.serving import ServingContract
from components.model_server.lookup_warnings import FALLBACK_WARNING, says_missing, says_stale, stale, view_warning
from components.model_server.request_probes import probe
from components.model_server.seldon.__main__ import read_skew

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def contract(release_folder: Path) -> ServingContract:
    return ServingContract.model_validate_json((release_folder / "serving.json").read_text())


def test_the_contract_of_a_release_refuses_every_malformed_request_by_its_field(contract: ServingContract) -> None:
    results = probe(contract)
    assert [result for result in results if not result.passed] == []
    names = {result.name for result in results}
    assert {"wrong type of features.distance", "unknown column in fields", "missing key route", "NaN in fields.month", "no rows"} <= names
    assert sum(result.expected == "" for result in results) == 2


def test_a_contract_that_refuses_the_well_formed_is_found_out(contract: ServingContract) -> None:
    tight = contract.model_copy(update={"lead_seconds": -3600.0})
    wrong = [result for result in probe(tight) if not result.passed]
    assert ("well-formed, complete", "", "instances[0].prediction_moment") in [(each.name, each.expected, each.found) for each in wrong]


def test_the_moment_skew_is_the_contracts_unless_an_option_says_otherwise(release_folder: Path) -> None:
    declared = json.loads((release_folder / "serving.json").read_text())["maximum_moment_skew_seconds"]
    skew = read_skew("", release_folder)
    assert skew is not None and skew.total_seconds() == declared == 900
    assert read_skew("unlimited", release_folder) is None


def test_a_warning_says_whether_a_value_was_stale_or_missing() -> None:
    old, unknown = view_warning("weather", stale("7h", "6h")), view_warning("plane", "nothing is published for the key")
    assert (says_stale(old), says_missing(old)) == (True, True)
    assert (says_stale(unknown), says_missing(unknown)) == (False, True)
    assert says_stale(FALLBACK_WARNING) and says_missing(FALLBACK_WARNING)
    assert not says_missing("distance: 9.0 is outside of its declared range [10, 20]")
