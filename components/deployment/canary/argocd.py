"""Ask Argo CD to compare with Git now instead of at its next polling. Nothing else of the cluster is ever touched."""

from __future__ import annotations

from components.contracts.errors import CrisplineError
from components.deployment.canary.options import ArgoCD

ANNOTATION = "argocd.argoproj.io/refresh"


def refresh(argocd: ArgoCD) -> None:
    """Annotate the Application; Argo CD removes the annotation when it has looked. Raises CrisplineError when that is not possible."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config.config_exception import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        config.load_config()
        client.CustomObjectsApi().patch_namespaced_custom_object(
            "argoproj.io",
            "v1alpha1",
            argocd.namespace,
            "applications",
            argocd.application,
            {"metadata": {"annotations": {ANNOTATION: "normal"}}},
            _request_timeout=10,
        )
    except (ApiException, ConfigException, HTTPError) as error:
        said = f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)
        raise CrisplineError(
            f"Argo CD's Application {argocd.namespace}/{argocd.application} cannot be asked to look: {said}; it looks by itself at its next polling"
        ) from error
