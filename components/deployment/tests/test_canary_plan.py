"""canary.yaml and the order of its steps; what the controller and what a review may change."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from components.deployment.canary.plan import NO_CANARY, Canary, InvalidCanary, canary_path, content_of, first_stage, next_stage, parse
from components.deployment.canary.policy import ForbiddenChange, approved, check_change, check_review, place_of
from components.deployment.gitops import FileVersion

pytestmark = pytest.mark.pipeline
RELEASE, OTHER = "a" * 64, "b" * 64
PLAN = [5, 25, 50, 100]
PATH = canary_path("flights", "prod")
plans = st.sets(st.integers(1, 99), min_size=1, max_size=6).map(lambda found: [*sorted(found), 100])


def at(step: int, plan: list[int] = PLAN, release: str = RELEASE) -> bytes:
    return content_of(Canary(release=release, plan=tuple(plan), step=step, weight=plan[step]))


def test_the_example_of_the_chart_is_read() -> None:
    found = parse(f"canary: {{release: {RELEASE}, plan: [5, 25, 50, 100], step: 1, weight: 25, shadow: false}}".encode(), PATH)
    assert found == Canary(release=RELEASE, plan=(5, 25, 50, 100), step=1, weight=25)
    assert found is not None and found.stage == "step 2 of 4 (25 %)"


@pytest.mark.parametrize("content", [None, b"", b"canary: {}\n", b"canary:\n", b"canary: {release: ''}\n", NO_CANARY])
def test_no_canary_is_written_in_several_ways(content: bytes | None) -> None:
    assert parse(content, PATH) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("canary: [", "is no YAML"),
        ("canary: 5", "is not a mapping"),
        ("canary: {}\nreplicas: 2", "other keys"),
        (f"canary: {{release: {RELEASE}, plan: [5, 100], step: 0, weight: 6}}", "weight 6 is not step 0"),
        (f"canary: {{release: {RELEASE}, plan: [5, 100], step: 2, weight: 5}}", "not step 2"),
        (f"canary: {{release: {RELEASE}, plan: [50, 5, 100], step: 0, weight: 50}}", "increasing percentages"),
        (f"canary: {{release: {RELEASE}, plan: [5, 50], step: 0, weight: 5}}", "does not end at 100"),
        (f"canary: {{release: {RELEASE}, plan: [5, 100], step: 0, weight: 5, shadow: true}}", "a shadow takes no traffic"),
        (f"canary: {{release: {RELEASE}, plan: [5, 100], step: 0, weight: 5, extra: 1}}", "canary.extra"),
        ("canary: {release: latest, plan: [5, 100], step: 0, weight: 5}", "canary.release"),
        (f"canary: {{release: {RELEASE}, plan: [5, 100], step: 0, weight: '5'}}", "canary.weight"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_remedy(content: str, message: str) -> None:
    with pytest.raises(InvalidCanary, match="remedy") as refused:
        parse(content.encode(), PATH)
    assert message in str(refused.value) and PATH in str(refused.value)


@given(plans, st.booleans())
def test_every_plan_runs_from_its_beginning_to_100_and_each_step_is_allowed(plan: list[int], shadow: bool) -> None:
    canary = first_stage(RELEASE, plan, shadow)
    seen = [] if shadow else [canary.weight]
    while not canary.is_last:
        following = next_stage(canary)
        check_change({PATH: content_of(canary)}, {PATH: content_of(following)}, plan)
        canary = following
        seen.append(canary.weight)
    assert seen == plan
    with pytest.raises(InvalidCanary, match="the last"):
        next_stage(canary)


@given(plans, st.data())
def test_what_is_written_is_read_again_and_helm_reads_the_same(plan: list[int], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, len(plan) - 1))
    canary = Canary(release=RELEASE, plan=tuple(plan), step=step, weight=plan[step])
    assert parse(content_of(canary), PATH) == canary
    values = YAML(typ="safe").load(io.BytesIO(content_of(canary)))
    assert values == {"canary": {"release": RELEASE, "plan": plan, "step": step, "weight": plan[step], "shadow": False}}


def test_a_plan_without_a_step_below_100_never_compares_and_is_refused() -> None:
    with pytest.raises(InvalidCanary, match="no step below 100"):
        first_stage(RELEASE, [100])
    assert first_stage(RELEASE, [100], shadow=True).shadow
    assert first_stage(RELEASE, [], shadow=True).is_last


def test_the_controller_may_end_a_canary_at_any_step() -> None:
    for step in range(4):
        check_change({PATH: at(step)}, {PATH: NO_CANARY}, PLAN)
        check_change({PATH: at(step)}, {PATH: None}, PLAN)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({PATH: at(0)}, {PATH: at(2)}, "not the next step"),
        ({PATH: at(2)}, {PATH: at(1)}, "not the next step"),
        ({PATH: at(3)}, {PATH: at(0)}, "not the next step"),
        ({PATH: at(0)}, {PATH: at(1, release=OTHER)}, "not the next step"),
        ({PATH: at(0)}, {PATH: at(1, [5, 100])}, "the plan is"),
        ({PATH: at(0, [5, 90, 100])}, {PATH: at(1, [5, 90, 100])}, "approved was"),
        ({PATH: NO_CANARY}, {PATH: at(0)}, "started a canary"),
        ({PATH: None}, {PATH: at(0)}, "started a canary"),
        ({PATH: at(0)}, {PATH: at(0)}, "changed nothing"),
        ({PATH: at(0)}, {PATH: b"canary: ["}, "is no YAML"),
        ({PATH: at(0), "charts/x.yaml": b"1"}, {PATH: at(1), "charts/x.yaml": b"2"}, "charts/x.yaml"),
        ({"manifests/environments/prod/flights/release.json": b"1"}, {"manifests/environments/prod/flights/release.json": b"2"}, "may change only one"),
        ({PATH: at(0), canary_path("other", "prod"): at(0)}, {PATH: at(1), canary_path("other", "prod"): at(1)}, "may change only one"),
        ({"manifests/environments/prod/../dev/canary.yaml": at(0)}, {"manifests/environments/prod/../dev/canary.yaml": at(1)}, "may change only one"),
    ],
)
def test_the_controller_may_do_nothing_else(before: dict[str, bytes | None], after: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(ForbiddenChange, match=message):
        check_change(before, after, PLAN)


def test_a_review_may_begin_and_end_a_canary() -> None:
    check_review(None, at(0), OTHER)
    check_review(NO_CANARY, at(0), OTHER)
    check_review(NO_CANARY, content_of(first_stage(RELEASE, PLAN, shadow=True)), OTHER)
    check_review(at(2), NO_CANARY, OTHER)
    check_review(at(2), None, OTHER)
    check_review(at(1), at(1), OTHER)


@pytest.mark.parametrize(
    ("before", "after", "released", "message"),
    [
        (at(1), at(0, release=OTHER), "c" * 64, "never two at once"),
        (at(1), at(2), OTHER, "never two at once"),
        (NO_CANARY, at(2), OTHER, "begins with step 1 of 4"),
        (NO_CANARY, at(0), RELEASE, "is the champion already"),
        (NO_CANARY, at(0), "", "nothing is released here"),
    ],
)
def test_a_review_may_not_begin_a_second_canary_or_one_in_its_middle(before: bytes, after: bytes, released: str, message: str) -> None:
    with pytest.raises(ForbiddenChange, match=message):
        check_review(before, after, released)


def test_the_approved_plan_is_that_of_the_newest_commit_that_is_not_the_controllers() -> None:
    step = {"Crispline-Kind": "canary-step"}
    history = [FileVersion("3", at(2), step), FileVersion("2", at(1), step), FileVersion("1", at(0), {}), FileVersion("0", at(0, [10, 100]), {})]
    assert approved(history, PATH) == parse(at(0), PATH)
    assert approved([], PATH) is None


def test_a_path_tells_its_place() -> None:
    assert place_of(PATH) == ("prod", "flights")
    assert place_of("manifests/environments/prod/flights/values.yaml") is None
