"""skaffold.yaml: valid by skaffold's schema, complete in every profile, and building what `crispline images` builds."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.images import DOCKERFILE, RECIPES, build_arguments
from pipelines.runners.environments import ROOT

pytestmark = pytest.mark.serving  # where jsonschema is

ENVIRONMENTS = ("dev", "staging", "prod")
CONFIGURATION: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
LABELS = {"VERSION", "REVISION", "SOURCE"}


def _patched(*profiles: str) -> dict[str, Any]:
    """The configuration as skaffold has it with some profiles on: their JSON patches applied, their sections laid over."""
    document = copy.deepcopy(CONFIGURATION)
    for name in profiles:
        profile = next(each for each in CONFIGURATION["profiles"] if each["name"] == name)
        for patch in profile.get("patches", []):
            *way, last = patch["path"].strip("/").split("/")
            place: Any = document
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place[step]
            key: Any = int(last) if isinstance(place, list) else last
            if patch["op"] == "remove":
                del place[key]
            elif isinstance(place, list) and patch["op"] == "add":
                assert key == len(place), patch
                place.append(patch["value"])
            else:
                assert patch["op"] == "add" or key in place, patch
                place[key] = patch["value"]
        document["build"].update(profile.get("build", {}))
    return document


def _schema() -> dict[str, Any]:
    """skaffold's own schema of the version that the file names, beside the schemas that CRISPLINE_SCHEMAS names."""
    version = CONFIGURATION["apiVersion"].removeprefix("skaffold/")
    for location in os.environ.get("CRISPLINE_SCHEMAS", "").split():
        for folder in Path(re.split(r"\{\{", location)[0]).absolute().parents:
            if (folder / f"skaffold-{version}.json").is_file():
                found: dict[str, Any] = json.loads((folder / f"skaffold-{version}.json").read_text())
                return found
    pytest.skip(
        f"no skaffold-{version}.json beside the locations in CRISPLINE_SCHEMAS; it is skaffold's own, from its repository under docs/content/en/schemas"
    )


@pytest.mark.parametrize("profiles", [(), ("dev",), ("dev", "kind"), ("staging",), ("prod",)])
def test_it_is_valid_by_skaffolds_schema_in_every_profile(profiles: tuple[str, ...]) -> None:
    jsonschema.validate(_patched(*profiles), _schema())


def test_there_is_a_profile_for_each_environment_and_for_kind() -> None:
    assert [profile["name"] for profile in CONFIGURATION["profiles"]] == ["dev", "kind", "staging", "prod"]


@pytest.mark.parametrize("profiles", [("dev",), ("staging",)])
def test_it_builds_the_images_that_crispline_builds(profiles: tuple[str, ...]) -> None:
    built = {each["image"]: each["docker"] for each in _patched(*profiles)["build"]["artifacts"]}
    for image, recipe in RECIPES.items():
        given = dict(part.split("=", 1) for part in build_arguments(image, "flights") if "=" in part)
        docker = built.pop(f"crispline-{image}")
        assert docker["buildArgs"] == {name: value for name, value in given.items() if name not in LABELS}
        assert (docker["dockerfile"], docker["target"]) == (DOCKERFILE, recipe.target)
    assert list(built) == (["crispline-workbench"] if "dev" in profiles else [])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_chart_is_deployed_with_the_values_of_its_environment_only(environment: str) -> None:
    releases = _patched(environment)["deploy"]["helm"]["releases"]
    assert sorted(each["chartPath"] for each in releases) == ["charts/canary-controller", "charts/model-server", "charts/platform", "charts/retrain-trigger"]
    assert {each["namespace"] for each in releases} == {f"crispline-{environment}"}
    files = list(itertools.chain.from_iterable(each["valuesFiles"] for each in releases))
    assert all(file.startswith(f"manifests/environments/{environment}/") for file in files)
    missing = [name for name in [*files, *(f"{each['chartPath']}/Chart.yaml" for each in releases)] if not (ROOT / name).is_file()]
    assert missing == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_values_that_are_set_are_values_of_the_charts(environment: str) -> None:
    for release in _patched(environment)["deploy"]["helm"]["releases"]:
        values = yaml.safe_load((ROOT / release["chartPath"] / "values.yaml").read_text())
        for path in release.get("setValueTemplates", {}):
            place = values
            for step in path.split("."):
                assert step in place, (release["name"], path)
                place = place[step]


def test_prod_builds_nothing_and_takes_its_images_from_its_values() -> None:
    document = _patched("prod")
    assert document["build"]["artifacts"] == []
    assert not any("setValueTemplates" in each for each in document["deploy"]["helm"]["releases"])


def test_the_workbench_alone_gets_changed_files_and_can_write_them() -> None:
    artifacts = _patched("dev")["build"]["artifacts"]
    assert [each["image"] for each in artifacts if "sync" in each] == ["crispline-workbench"]
    rule = artifacts[-1]["sync"]["manual"][0]
    pod = yaml.safe_load((ROOT / "manifests/development/workbench.yaml").read_text())["spec"]["template"]["spec"]
    container = pod["containers"][0]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert container["image"] == "crispline-workbench" and container["securityContext"]["readOnlyRootFilesystem"]
    assert any("emptyDir" in volume for volume in pod["volumes"] if volume["name"] == mounted[rule["dest"]])
