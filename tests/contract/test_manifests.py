"""The manifests agree with each other, with the charts and with what the platform's own schemas say; Argo CD and Flux are told the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.contracts.artifacts import Release
from components.contracts.loading import load_usecase
from components.deployment.canary.plan import parse
from components.deployment.environment_file import InvalidEnvironment, known_environments, load_environment, parse_environment
from components.deployment.releases import released
from pipelines.flux_manifests import flux_files, out_of_date
from tests.charts.helm import ROOT, Helm, Kubeconform, found_helm, found_kubeconform

Object = dict[str, Any]
MANIFESTS = ROOT / "manifests"
ENVIRONMENTS = ("dev", "staging", "prod")
USECASES = sorted({file.parent.name for file in (MANIFESTS / "environments").glob("*/*/values.yaml")})
PLACES = [(environment, usecase) for environment in ENVIRONMENTS for usecase in USECASES]


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file.read_text())


def documents(folder: str) -> Iterator[tuple[Path, Object]]:
    for file in sorted((MANIFESTS / folder).rglob("*.yaml")):
        for document in YAML(typ="safe").load_all(file.read_text()):
            if (document and document["kind"] != "Kustomization") or (document and "fluxcd" in document["apiVersion"]):
                yield file, document


def environment_folder(environment: str) -> Path:
    return MANIFESTS / "environments" / environment


@pytest.fixture(scope="module")
def helm() -> Helm:
    return found_helm()


@pytest.fixture(scope="module")
def kubeconform() -> Kubeconform:
    return found_kubeconform()


# --- environments ----------------------------------------------------------------------------------------------------------------------------


def test_the_environments_are_those_that_use_cases_declare() -> None:
    assert set(known_environments()) == set(ENVIRONMENTS)
    for usecase in USECASES:
        assert set(load_usecase(usecase).config.deployment.environments) == set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environments_file_is_valid_and_its_own(environment: str) -> None:
    """Each environment has stores, services and claims of its own: nothing of another environment stands in its file."""
    file = load_environment(environment)
    others = [name for name in ENVIRONMENTS if name != environment]
    text = (environment_folder(environment) / "platform.yaml").read_text()
    assert not [name for name in others if re.search(rf"[/-]{name}\b", text)]
    assert file.access.namespace == f"crispline-{environment}" and file.access.secrets
    assert load(environment_folder(environment) / "platform.yaml")["access"]["server"] == file.access.server  # Argo CD's sets read it there


@pytest.mark.parametrize(
    ("change", "key", "remedy"),
    [
        (("  environment: dev", "  environment: prod"), "platform.environment", "write `environment: dev`"),
        (("  lake_uri: s3://crispline/dev/lake", "  lake: s3://crispline/dev/lake"), "platform.lake_uri", "add `lake_uri:` under `platform`"),
        (("tracking_uri: http://", "tracking_uri: http://me:secret@"), "platform.tracking_uri", "keep it in a Secret"),
        (("  registry: ghcr.io/example", "  registry: ghcr.io/example\n  colour: blue"), "access.colour", "remove it"),
        (("  namespace: crispline-dev", "  namespace: Crispline_Dev"), "access.namespace", "see docs/how-to/kubernetes.md"),
    ],
)
def test_a_fault_in_an_environments_file_is_told_with_line_key_and_remedy(change: tuple[str, str], key: str, remedy: str) -> None:
    file = environment_folder("dev") / "platform.yaml"
    text = file.read_text()
    assert change[0] in text
    with pytest.raises(InvalidEnvironment) as refused:
        parse_environment(text.replace(*change), file, "dev")
    problem = next(each for each in refused.value.problems if each.key == key)
    assert problem.line > 0 and remedy in problem.remedy and "secret@" not in str(refused.value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_chart_of_an_environment_is_told_the_same_places(environment: str) -> None:
    """Object store, ConfigMap and registry stand in several values files, because charts are installed one by one."""
    file, folder = load_environment(environment), environment_folder(environment)
    platform = load(folder / "platform-values.yaml")
    config_map = platform["configMap"]["name"]
    assert load(folder / "pipelines.yaml")["configMap"] == config_map
    values = [folder / "canary-controller.yaml", *sorted(folder.glob("*/values.yaml")), *sorted(folder.glob("*/retrain-trigger.yaml"))]
    assert len(values) == 1 + 2 * len(USECASES)
    for each in values:
        document = load(each)
        assert document["environment"] == environment, each
        assert document["platform"]["configMap"] == config_map, each
        assert document["images"]["registry"] == platform["images"]["registry"] == file.access.registry, each
        store = document["objectStore"]
        assert (store["endpoint"], store["region"], store["existingSecret"]) == (
            file.object_store.endpoint,
            file.object_store.region,
            file.object_store.existing_secret,
        ), each


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_secret_that_something_names_is_one_that_the_doctor_looks_for(environment: str) -> None:
    def named(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key == "existingSecret" and value)
            for value in node.values():
                yield from named(value)

    folder = environment_folder(environment)
    found = {name for each in folder.rglob("*.yaml") for name in named(load(each))}
    found |= {secret["name"] for secret in load(folder / "pipelines.yaml")["secrets"]}
    assert found <= set(load_environment(environment).access.secrets)


@pytest.mark.parametrize(("environment", "usecase"), PLACES)
def test_release_and_canary_are_files_that_promotions_write(environment: str, usecase: str) -> None:
    folder = environment_folder(environment) / usecase
    release = released((folder / "release.json").read_bytes(), "release.json")
    assert release is None or (release.environment, release.usecase) == (environment, usecase)
    parse((folder / "canary.yaml").read_bytes(), "canary.yaml")


@pytest.mark.parametrize(("environment", "usecase"), PLACES)
def test_the_charts_take_every_file_of_an_environment(helm: Helm, kubeconform: Kubeconform, environment: str, usecase: str) -> None:
    folder, namespace = environment_folder(environment), load_environment(environment).access.namespace
    installed = {
        "platform": ([folder / "platform.yaml", folder / "platform-values.yaml"], {}),
        "canary-controller": ([folder / "canary-controller.yaml"], {}),
        "retrain-trigger": ([folder / usecase / "retrain-trigger.yaml"], {}),
        "model-server": ([folder / usecase / name for name in ("values.yaml", "release.json", "canary.yaml")], example_release(environment, usecase)),
    }
    for chart, (files, values) in installed.items():
        rendered = helm.template(chart, values, files=files, namespace=namespace, release=chart)
        assert "kind:" in rendered, chart
        kubeconform.check(rendered)


def example_release(environment: str, usecase: str) -> Object:
    """What a promotion would commit, with every key."""
    digest = {"digest": "sha256:" + "a" * 64}
    release = Release(
        usecase=usecase,
        environment=environment,
        release="b" * 64,
        model_version="model-1",
        data_version="data-1",
        gates_record="gates-1",
        evaluation="evaluation-1",
        images={"serving": digest, "monitoring": digest},  # type: ignore[dict-item]
        source="dev",
        cause="first",
        promoted="2013-04-01T00:00:00Z",  # type: ignore[arg-type]
        previous="c" * 64,
    )
    return release.model_dump(mode="json")


def test_the_digests_of_a_release_win_over_the_tags_of_the_values(helm: Helm) -> None:
    folder = environment_folder("prod") / USECASES[0]
    rendered = helm.template("model-server", example_release("prod", USECASES[0]), files=[folder / "values.yaml"], tests=False)
    ours = set(re.findall(r"image: \"?(\S*crispline-(?:serving|monitoring)\S*?)\"?$", rendered, re.MULTILINE))
    assert ours == {f"ghcr.io/example/crispline-{name}@sha256:{'a' * 64}" for name in ("serving", "monitoring")}


# --- namespaces ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_namespace_is_restricted_limited_and_never_deleted(environment: str) -> None:
    found = {document["kind"]: document for _, document in documents(f"namespaces/{environment}") if document["kind"] != "RoleBinding"}
    namespace = found["Namespace"]["metadata"]
    assert namespace["name"] == load_environment(environment).access.namespace
    assert {namespace["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    assert "Prune=false" in namespace["annotations"]["argocd.argoproj.io/sync-options"]
    assert namespace["annotations"]["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
    assert found["ResourceQuota"]["spec"]["hard"]["limits.memory"] and found["LimitRange"]["spec"]["limits"]
    assert {document["metadata"]["namespace"] for _, document in documents(f"namespaces/{environment}") if document["kind"] != "Namespace"} == {
        namespace["name"]
    }


def test_people_change_nothing_by_hand_outside_of_dev() -> None:
    for environment in ENVIRONMENTS:
        roles = {document["roleRef"]["name"] for _, document in documents(f"namespaces/{environment}") if document["kind"] == "RoleBinding"}
        assert ("edit" in roles) == (environment == "dev")
        rules = [rule for _, document in documents(f"namespaces/{environment}") if document["kind"] == "Role" for rule in document["rules"]]
        writes = [rule["resources"] for rule in rules if set(rule["verbs"]) - {"get", "list", "watch"}]
        assert writes == [["pods/portforward"]] and not [rule for rule in rules if "secrets" in rule["resources"]]


# --- Argo CD and Flux ------------------------------------------------------------------------------------------------------------------------


def optional_folders() -> list[Path]:
    """What is reconciled as it is, where it is there: secrets of an environment, pipelines of a use case."""
    return [*(MANIFESTS / "environments").glob("*/secrets"), *(MANIFESTS / "pipelines").glob("*/*")]


def applications() -> dict[str, Object]:
    """The Applications that the sets make of manifests/environments, by name: what their generators and Go templates do, for the few forms in use."""
    found = {}
    for _, document in documents("argocd"):
        if document["kind"] == "ApplicationSet":
            for parameters in generated(document["spec"]["generators"][0]):
                application = filled(document["spec"]["template"], parameters)
                found[application["metadata"]["name"]] = application
    return found


def generated(generator: Object, parameters: Object | None = None) -> Iterator[Object]:
    if "matrix" in generator:
        first, second = generator["matrix"]["generators"]
        for outer in generated(first):
            yield from ({**inner, **outer} for inner in generated(second, outer))
        return
    git = generator["git"]
    for pattern in git.get("directories", []):
        for folder in sorted(ROOT.glob(filled(pattern["path"], parameters or {}))):
            yield {"path": {"basename": folder.name, "basenameNormalized": folder.name}}
    for pattern in git.get("files", []):
        for file in sorted(ROOT.glob(filled(pattern["path"], parameters or {}))):
            path = {"path": {"basename": file.parent.name, "basenameNormalized": file.parent.name.replace("_", "-")}}
            yield {**load(file), **({git["pathParamPrefix"]: path} if "pathParamPrefix" in git else path)}


def filled(node: Any, parameters: Object) -> Any:
    if isinstance(node, dict):
        return {key: filled(value, parameters) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(each, parameters) for each in node]

    def value(match: re.Match[str]) -> str:
        found: Any = parameters
        for part in match[1].split("."):
            found = found[part]
        return str(found)

    return re.sub(r"\{\{ \.([\w.]+) \}\}", value, node) if isinstance(node, str) else node


def test_every_environment_syncs_by_itself_prunes_and_heals() -> None:
    found = applications()
    assert len(found) == len(ENVIRONMENTS) * (3 + 2 * len(USECASES)) + len(optional_folders())
    for name, application in found.items():
        policy = application["spec"]["syncPolicy"]
        assert policy["automated"] == {"prune": True, "selfHeal": True} and "ServerSideApply=true" in policy["syncOptions"], name


def test_an_application_stays_in_the_project_and_the_namespace_of_its_environment() -> None:
    projects = {document["metadata"]["name"]: document["spec"] for _, document in documents("argocd") if document["kind"] == "AppProject"}
    for name, application in applications().items():
        spec, environment = application["spec"], application["metadata"]["labels"]["crispline.io/environment"]
        project = projects[spec["project"]]
        place = "kubeflow" if "-pipelines-" in name else f"crispline-{environment}"
        assert (spec["project"], spec["destination"]["namespace"]) == (f"crispline-{environment}", place), name
        assert spec["source"]["repoURL"] in project["sourceRepos"] == [load_environment(environment).platform.gitops_repository], name
        assert {"server": spec["destination"]["server"], "namespace": spec["destination"]["namespace"]} in project["destinations"], name
        assert {"group": "argoproj.io", "kind": "*"} in project["namespaceResourceBlacklist"]
        assert all(" get, " in policy for role in project["roles"] for policy in role["policies"])


def test_one_application_owns_the_kinds_of_the_retrain_trigger() -> None:
    """Each trigger's Application would track them otherwise, and take them from one another."""
    folder = "charts/retrain-trigger/crds"
    assert (ROOT / folder).is_dir()
    (owner,) = [document for _, document in documents("argocd") if document["kind"] == "Application"]
    projects = {document["metadata"]["name"]: document["spec"] for _, document in documents("argocd") if document["kind"] == "AppProject"}
    assert owner["spec"]["source"]["path"] == folder and owner["spec"]["syncPolicy"]["automated"]["prune"] is False
    kinds = {"group": "apiextensions.k8s.io", "kind": "CustomResourceDefinition"}
    assert [name for name, project in projects.items() if kinds in project["clusterResourceWhitelist"]] == [owner["spec"]["project"]]
    triggers = [each["spec"]["source"] for each in applications().values() if each["spec"]["source"]["path"] == "charts/retrain-trigger"]
    assert len(triggers) == len(PLACES) and all(source["helm"]["skipCrds"] is True for source in triggers)


def test_the_canary_controller_finds_the_application_that_it_asks_to_refresh() -> None:
    """Its chart calls it `{usecase}-{environment}`."""
    assert '"{usecase}-{environment}"' in (ROOT / "charts" / "canary-controller" / "values.yaml").read_text()
    assert {f"{usecase.replace('_', '-')}-{environment}" for environment, usecase in PLACES} <= set(applications())


def test_flux_is_told_what_argo_cd_is_told() -> None:
    def of_argocd(application: Object) -> tuple[Any, ...]:
        source, destination = application["spec"]["source"], application["spec"]["destination"]
        helm = source["helm"]
        files = tuple(path.removeprefix("/") for path in helm["valueFiles"])
        return (source["path"], helm["releaseName"], destination["namespace"], files, helm.get("ignoreMissingValueFiles", False), source["repoURL"])

    def of_flux(release: Object, url: str) -> tuple[Any, ...]:
        spec, chart = release["spec"], release["spec"]["chart"]["spec"]
        own, *files = (path.removeprefix("./") for path in chart["valuesFiles"])
        path = chart["chart"].removeprefix("./")
        assert own == f"{path}/values.yaml" and chart["reconcileStrategy"] == "Revision" and spec["driftDetection"]["mode"] == "enabled"
        return (path, spec["releaseName"], spec["targetNamespace"], tuple(files), chart.get("ignoreMissingValuesFiles", False), url)

    flux = [document for _, document in documents("flux")]
    urls = {document["metadata"]["labels"]["crispline.io/environment"]: document["spec"]["url"] for document in flux if document["kind"] == "GitRepository"}
    told = {of_flux(each, urls[each["metadata"]["labels"]["crispline.io/environment"]]) for each in flux if each["kind"] == "HelmRelease"}
    assert told == {of_argocd(each) for each in applications().values() if "helm" in each["spec"]["source"]}
    paths = {each["spec"]["path"].removeprefix("./") for each in flux if each["kind"] == "Kustomization"}
    assert paths == {each["spec"]["source"]["path"] for each in applications().values() if "helm" not in each["spec"]["source"]}
    assert all((ROOT / path).is_dir() for path in paths)


def test_the_manifests_for_flux_are_as_they_would_be_written_now() -> None:
    assert out_of_date() == {}
    assert len(flux_files()) == len(ENVIRONMENTS) * (4 + len(USECASES)) + len(optional_folders())


def test_what_a_release_for_flux_waits_for_exists() -> None:
    releases = {document["metadata"]["name"]: document for _, document in documents("flux") if document["kind"] == "HelmRelease"}
    waits = {each["name"] for document in releases.values() for each in document["spec"].get("dependsOn", [])}
    assert waits == {f"crispline-platform-{environment}" for environment in ENVIRONMENTS} <= set(releases)


@pytest.mark.parametrize("folder", ["argocd", "flux", *(f"namespaces/{environment}" for environment in ENVIRONMENTS)])
def test_every_object_fits_its_schema(kubeconform: Kubeconform, folder: str) -> None:
    texts = [file.read_text() for file in sorted((MANIFESTS / folder).rglob("*.yaml")) if file.name != "kustomization.yaml"]
    assert texts
    kubeconform.check("\n---\n".join(texts))


def test_kustomize_lists_every_file_of_its_folder() -> None:
    for file in MANIFESTS.rglob("kustomization.yaml"):
        others = {each.name for each in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(load(file)["resources"]) == others, file


# --- who may commit --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.ml_test("model-1")
def test_a_promotion_into_staging_and_prod_is_a_reviewed_merge() -> None:
    owners = (ROOT / ".github" / "CODEOWNERS").read_text()
    for usecase in USECASES:
        assert load_usecase(usecase).config.deployment.promotion == {"dev": "commit", "staging": "pull_request", "prod": "pull_request"}
    assert all(f"/manifests/environments/{environment}/ @" in owners.replace("    ", " ") for environment in ("staging", "prod"))


def test_ci_holds_every_environment_against_the_policy() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "releases.yaml")
    job = workflow["jobs"]["check"]
    assert set(job["strategy"]["matrix"]["environment"]) == set(ENVIRONMENTS) and job["strategy"]["fail-fast"] is False
    assert workflow["permissions"] == {"contents": "read"}
    triggers = workflow["on"]
    assert triggers["pull_request"]["paths"] == triggers["push"]["paths"] == ["manifests/environments/**"]
    commands = [step.get("run", "") for step in job["steps"]]
    assert any("crispline check-releases" in command and "--base" in command for command in commands)
    # What an event carries is data: it reaches the shell through variables only.
    assert not any(
        "${{" in step.get("run", "")
        for file in (ROOT / ".github" / "workflows").glob("*.yaml")
        for each in load(file)["jobs"].values()
        for step in each["steps"]
    )
