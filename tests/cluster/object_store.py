"""The object store of the cluster that the tests use: MinIO as its add-on or its chart installs it, and a bucket of one's own in it."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from s3fs import S3FileSystem

from tests.cluster.access import Cluster, Object

NAMESPACE, SERVICE, PORT = "minio", "minio", 9000
_KEYS = (("root-user", "root-password"), ("rootUser", "rootPassword"))


@dataclass(frozen=True)
class Bucket:
    """`endpoint` is the address inside of the cluster; `outside` the one from here, as long as the block lasts."""

    name: str
    endpoint: str
    outside: str
    access_key: str
    secret_key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @property
    def variables(self) -> dict[str, str]:
        """What every client library in this process reads."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.outside,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def secret(self, name: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key},
        }


@contextlib.contextmanager
def bucket_of(kube: Cluster) -> Iterator[Bucket]:
    """A new bucket, emptied and removed afterwards; meanwhile this process finds the store. Skips visibly where the cluster has none."""
    secret = kube.get("v1", "Secret", "minio", NAMESPACE)
    if secret is None or kube.get("v1", "Service", SERVICE, NAMESPACE) is None:
        pytest.skip(
            "the cluster has no object store; install one where the tests look for it: helm install minio minio --repo https://charts.min.io -n minio "
            "--create-namespace --set mode=standalone --set resources.requests.memory=512Mi"
        )
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    user, password = next((data[user], data[password]) for user, password in _KEYS if user in data)
    before = dict(os.environ)
    with kube.forward(NAMESPACE, f"service/{SERVICE}", PORT) as outside:
        name = f"crispline-{secrets.token_hex(4)}"
        found = Bucket(name, f"http://{SERVICE}.{NAMESPACE}.svc:{PORT}", outside, user, password)
        os.environ.update(found.variables)
        S3FileSystem.clear_instance_cache()  # instances hold the endpoint of an earlier block
        store = S3FileSystem(use_listings_cache=False)
        store.mkdir(name)
        try:
            yield found
        finally:
            store.rm(name, recursive=True)
            S3FileSystem.clear_instance_cache()
            os.environ.clear()
            os.environ.update(before)
