"""The few calls of the Kubernetes API that the trigger's state needs: create, read, replace if unchanged, list, delete.

All that the API says is translated here: somebody else was faster (None or False), or the store cannot do its work (`StoreUnavailable`,
with a remedy).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from components.contracts.errors import CrisplineError
from components.monitoring.retrain_trigger.claims import StoreUnavailable

GROUP, VERSION = "crispline.io", "v1alpha1"
_TIMEOUT_SECONDS = (3.0, 15.0)  # to connect, to answer
_PAGE = 500
_WHOLE = "application/json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Manifest = dict[str, Any]


def connect() -> client.ApiClient:
    """The API of the cluster that this pod runs in; elsewhere, or with KUBECONFIG set, the one of the kubeconfig. Raises CrisplineError."""
    settings = client.Configuration()
    settings.retries = urllib3.Retry(connect=3, read=1, redirect=0, backoff_factor=0.2)
    try:
        if os.environ.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" not in os.environ:
            # Named here, because the package reads the variable once, when it is imported.
            config.load_kube_config(config_file=os.environ.get("KUBECONFIG"), client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
    except ConfigException as error:
        raise CrisplineError(f"no access to a Kubernetes API: {error}; in a pod mount the service account's token, elsewhere set KUBECONFIG") from error
    return client.ApiClient(settings)


def own_namespace() -> str:
    """The namespace of this pod. Raises CrisplineError outside of one."""
    if not _NAMESPACE_FILE.exists():
        raise CrisplineError("claims_uri names no namespace, and this is no pod that has one; write kubernetes:///<namespace>/<prefix>")
    return _NAMESPACE_FILE.read_text().strip()


class Objects:
    """Custom resources of one kind in one namespace. A write is atomic, and durable when it returns."""

    def __init__(self, api: client.ApiClient, namespace: str, kind: str, plural: str) -> None:
        self.namespace, self.kind, self.plural = namespace, kind, plural
        self._api = api
        self._custom = client.CustomObjectsApi(api)
        self._place = (GROUP, VERSION, namespace, plural)

    def create(self, name: str, labels: dict[str, str], spec: Manifest) -> Manifest | None:
        """The object as stored; None when there is one of that name."""
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind, "metadata": {"name": name, "labels": labels}, "spec": spec}
        return self._call("create", (409,), self._custom.create_namespaced_custom_object, *self._place, body)

    def get(self, name: str) -> Manifest | None:
        return self._call("get", (404,), self._custom.get_namespaced_custom_object, *self._place, name)

    def replace(self, read: Manifest, labels: dict[str, str], spec: Manifest) -> Manifest | None:
        """The object as stored; None when it was changed or deleted since it was `read`."""
        metadata = {name: value for name, value in read["metadata"].items() if name != "managedFields"}
        body = read | {"metadata": metadata | {"labels": metadata.get("labels", {}) | labels}, "spec": spec}
        return self._call("update", (404, 409), self._custom.replace_namespaced_custom_object, *self._place, metadata["name"], body)

    def delete(self, read: Manifest) -> bool:
        """False when it was changed or deleted since it was `read`."""
        metadata = read["metadata"]
        unchanged = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=metadata["uid"], resource_version=metadata["resourceVersion"]))
        delete = self._custom.delete_namespaced_custom_object
        return self._call("delete", (404, 409), delete, *self._place, metadata["name"], body=unchanged) is not None

    def select(self, selector: str) -> list[Manifest]:
        """Every object with these labels, as of one moment that is not before the call."""
        return self._pages(selector, _WHOLE)

    def labels(self, selector: str) -> list[dict[str, str]]:
        """The labels alone of every object with these labels."""
        return [one["metadata"].get("labels", {}) for one in self._pages(selector, _METADATA_ONLY)]

    def _pages(self, selector: str, accept: str) -> list[Manifest]:
        found: list[Manifest] = []
        following = ""
        while True:
            page = self._call("list", (410,), self._page, selector, accept, following)
            if page is None:  # too slow: the moment that the pages before are of is no longer kept
                found, following = [], ""
                continue
            found += page["items"] or []  # null where a list of metadata is empty
            following = page["metadata"].get("continue", "")
            if not following:
                return found

    def _page(self, selector: str, accept: str, following: str, **options: Any) -> Any:
        query = [("labelSelector", selector), ("limit", str(_PAGE))] + ([("continue", following)] if following else [])
        return self._api.call_api(
            f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{self.plural}",
            "GET",
            query_params=query,
            header_params={"Accept": accept},
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            **options,
        )

    def _call(self, verb: str, expected: tuple[int, ...], function: Callable[..., Any], *arguments: Any, **named: Any) -> Manifest | None:
        """The answer; None for an `expected` HTTP status."""
        what = f"{verb} {self.plural}.{GROUP} in namespace {self.namespace}"
        try:
            answer: Manifest = function(*arguments, **named, _request_timeout=_TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status in expected and (error.status != 404 or _names_an_object(error)):
                return None
            raise StoreUnavailable(f"cannot {what}: {_message(error)}{_REMEDIES.get(error.status, '')}") from error
        except urllib3.exceptions.HTTPError as error:
            raise StoreUnavailable(f"cannot {what}: the Kubernetes API does not answer ({error})") from error
        return answer


_REMEDIES = {
    401: "; the service account's token is missing or not valid for this API",
    403: "; the Role of charts/retrain-trigger must name this service account (a pipeline's steps: value pipelineRunner.serviceAccounts)",
    404: "; the custom resources of charts/retrain-trigger/crds must be installed, and the namespace must exist",
}


def _names_an_object(error: ApiException) -> bool:
    """An object that is not there is told apart from a kind that is not known: for that the API answers in plain text."""
    try:
        return bool(json.loads(error.body)["details"]["name"])
    except (ValueError, KeyError, TypeError):
        return False


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.status} {str(error.body or error.reason).strip()}"
