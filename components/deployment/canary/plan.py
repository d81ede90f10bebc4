"""The canary of one environment as Git holds it: `manifests/environments/<environment>/<usecase>/canary.yaml`, and the order of its steps.

    canary: {release: <bundle id>, plan: [5, 25, 50, 100], step: 0, weight: 5, shadow: false}

The file is Helm values, read by charts/model-server. `weight` is what is in force: `plan[step]`. A shadow stage (`shadow: true`, weight 0)
comes before the first step, if there is one. No file, `canary: {}` or an empty release is no canary. One file holds one canary, so an
environment and use case never has two.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.contracts.errors import CrisplineError

KEY = "canary"
NO_CANARY = b"canary: {}\n"


class InvalidCanary(CrisplineError):
    """canary.yaml, or a change of it, breaks the contract."""

    exit_code = 2


class Canary(BaseModel):
    """A canary in force. `plan`: the percentages of all its steps, as the review approved them; `step`: position in it, from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    release: str = Field(pattern=r"^[0-9a-f]{64}$")
    plan: tuple[int, ...] = Field(strict=False)
    step: int = Field(ge=0)
    weight: int = Field(ge=0, le=100)
    shadow: bool = False

    @model_validator(mode="after")
    def _coherent(self) -> Canary:
        plan = list(self.plan)
        if plan != sorted(set(plan)) or any(each < 1 or each > 100 for each in plan):
            raise ValueError(f"plan {plan} is not a row of increasing percentages; write e.g. [5, 25, 50, 100]")
        if self.shadow:
            if self.step or self.weight:
                raise ValueError("a shadow takes no traffic; write step: 0, weight: 0")
            return self
        if not plan or plan[-1] != 100:
            raise ValueError(f"plan {plan} does not end at 100; write e.g. [5, 25, 50, 100]")
        if self.step >= len(plan) or self.weight != plan[self.step]:
            raise ValueError(f"weight {self.weight} is not step {self.step} of plan {plan}; `weight` is the percentage at position `step`, from 0")
        return self

    @property
    def is_last(self) -> bool:
        """Nothing left to raise: at 100, or in a shadow without a plan."""
        return not self.plan if self.shadow else self.step == len(self.plan) - 1

    @property
    def stages(self) -> int:
        """Stages that the canary can be judged at, the shadow included."""
        return len(self.plan) + int(self.shadow)

    @property
    def stage(self) -> str:
        """For people: `shadow`, or `step 2 of 4 (25 %)`."""
        return "shadow" if self.shadow else f"step {self.step + 1} of {len(self.plan)} ({self.weight} %)"

    @property
    def predictor(self) -> str:
        """The predictor's name in the prediction log and in the metrics."""
        return "shadow" if self.shadow else "canary"


def canary_path(usecase: str, environment: str) -> str:
    """Path of the canary's file inside the GitOps repository."""
    return f"manifests/environments/{environment}/{usecase}/canary.yaml"


def parse(content: bytes | None, path: str) -> Canary | None:
    """The canary in force; None for no file and for no canary. Raises InvalidCanary naming file, key and remedy."""
    if content is None:
        return None
    try:
        document = YAML(typ="safe").load(io.BytesIO(content))
    except YAMLError as error:
        raise InvalidCanary(f"{path} is no YAML: {error}\n    remedy: restore it from its history, or write `canary: {{}}` for no canary") from error
    if document is None:
        return None
    if not isinstance(document, dict) or set(document) - {KEY}:
        raise InvalidCanary(f"{path}: has other keys than `{KEY}`\n    remedy: keep other values in values.yaml; this file holds the canary alone")
    given = document.get(KEY) or {}
    if not isinstance(given, dict):
        raise InvalidCanary(f"{path}: {KEY}: is not a mapping\n    remedy: write `canary: {{}}` for no canary")
    if not given.get("release"):
        return None
    try:
        return Canary.model_validate(given)
    except ValidationError as error:
        faults = "\n".join(f"{path}: {'.'.join([KEY, *(str(part) for part in each['loc'])])}: {each['msg']}" for each in error.errors())
        raise InvalidCanary(f"{faults}\n    remedy: correct it in a reviewed change, or write `canary: {{}}` for no canary") from error


def content_of(canary: Canary | None) -> bytes:
    """The file's bytes: one value a line, so that a review shows what changes."""
    if canary is None:
        return NO_CANARY
    lines = [f"release: {canary.release}", f"plan: [{', '.join(map(str, canary.plan))}]", f"step: {canary.step}", f"weight: {canary.weight}"]
    return ("canary:\n" + "".join(f"  {line}\n" for line in [*lines, f"shadow: {str(canary.shadow).lower()}"])).encode()


def first_stage(release: str, plan: Sequence[int], shadow: bool = False) -> Canary:
    """How a canary begins. Raises InvalidCanary for a plan that never compares: without a step below 100 there is no champion beside it."""
    if not shadow and len(plan) < 2:
        raise InvalidCanary(
            f"plan {list(plan)} has no step below 100 to compare at\n    remedy: add one, begin with a shadow stage, or promote without a canary"
        )
    try:
        return Canary(release=release, plan=tuple(plan), step=0, weight=0 if shadow or not plan else plan[0], shadow=shadow)
    except ValidationError as error:
        raise InvalidCanary(f"this canary cannot begin: {error.errors()[0]['msg']}") from error


def next_stage(canary: Canary) -> Canary:
    """The stage after this one: the first step after a shadow, else the next percentage. Raises InvalidCanary after the last."""
    if canary.is_last:
        raise InvalidCanary(f"{canary.stage} is the last; there is nothing to raise")
    step = 0 if canary.shadow else canary.step + 1
    return Canary(release=canary.release, plan=canary.plan, step=step, weight=canary.plan[step])
