"""Configuration of the controller: one file, mounted from the chart's ConfigMap."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.contracts.errors import CrisplineError
from components.deployment.canary.calls import CallOptions
from components.deployment.canary.judgement import Rule


class ArgoCD(BaseModel):
    """The Argo CD Application that renders the environment's manifests; asked to look at once after a commit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    application: str = Field(min_length=1)
    namespace: str = Field(default="argocd", min_length=1)


class Watched(BaseModel):
    """One use case whose canary is driven."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    usecase: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    calls: CallOptions
    argocd: ArgoCD | None = None
    rule: Rule = Rule()


class ControllerOptions(BaseModel):
    """`author`: whose name stands on the commits, so that branch rules and reviewers can tell them apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    usecases: list[Watched] = Field(min_length=1)
    interval_seconds: float = Field(default=15, ge=1)
    author_name: str = Field(default="crispline-canary", min_length=1)
    author_address: str = Field(default="crispline-canary@localhost", min_length=3)

    @classmethod
    def load(cls, path: Path) -> ControllerOptions:
        """Raises CrisplineError naming file, key and fault."""
        try:
            return cls.model_validate_json(path.read_text())
        except OSError as error:
            raise CrisplineError(f"{path} cannot be read: {error.strerror}\n    remedy: mount the chart's ConfigMap there, or name another file") from error
        except ValidationError as error:
            faults = "\n".join(f"{path}: {'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors())
            raise CrisplineError(f"{faults}\n    remedy: correct the values of charts/canary-controller") from error
