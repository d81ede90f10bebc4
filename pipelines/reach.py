"""The endpoints of an environment as this machine reaches them, and the credentials that it has for them.

The addresses in platform.yaml are those that pods use. A name that does not resolve here and has the form of a Service's is reached through
`kubectl port-forward`, with the rights of the person's kubeconfig; everything else is asked directly.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from upath import UPath

from components.contracts.errors import CrisplineError
from components.deployment.environment_file import EnvironmentFile
from components.deployment.promotion import Stores

_FORWARDING = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+)")
_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_FORWARD_SECONDS = 20.0
_SCHEME_PORTS = {"http": 80, "https": 443, "redis": 6379}


class NotReachable(CrisplineError):
    """An endpoint cannot be reached from this machine."""


@dataclass(frozen=True)
class ClusterService:
    """A Kubernetes Service and one of its ports."""

    name: str
    namespace: str
    port: int


@dataclass
class Reach:
    """One environment, reached from here for as long as the block lasts."""

    environment: EnvironmentFile
    _stack: ExitStack
    _forwarded: dict[ClusterService, int] = field(default_factory=dict)

    def url(self, address: str) -> str:
        """The address itself, or the one under which a port-forward has it. Raises NotReachable with the remedy."""
        service = cluster_service(address, self.environment.access.namespace)
        if service is None or resolves(urlsplit(address).hostname or ""):
            return address
        if service not in self._forwarded:
            self._forwarded[service] = self._stack.enter_context(port_forward(service, self.environment.access.context))
        parts = urlsplit(address)
        return urlunsplit((parts.scheme, f"127.0.0.1:{self._forwarded[service]}", parts.path, parts.query, ""))

    def path(self, uri: str) -> UPath:
        """An object-store URI with the endpoint and the credentials that this process has; any other URI as it is."""
        return UPath(uri, **self._store_options()) if uri.startswith("s3://") else UPath(uri)

    @property
    def stores(self) -> Stores:
        return Stores(self.path(self.environment.platform.bundles_uri), self.path(self.environment.platform.records_uri))

    def kubectl(self, *arguments: str) -> str:
        """What kubectl answers in the environment's context and namespace. Raises NotReachable with its message."""
        return kubectl(self.environment.access.context, "-n", self.environment.access.namespace, *arguments)

    def store_variables(self) -> dict[str, str]:
        """The same for code that takes no options: environment variables, under the names that every client reads itself."""
        options, region = self._store_options(), self.environment.object_store.region
        found = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        if endpoint := options.get("endpoint_url", ""):
            found |= {"AWS_ENDPOINT_URL": endpoint, **({"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {})}
        if "key" in options:
            found |= {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
        if "profile" in options:
            found |= _keys_of_profile(options["profile"])
        return found

    def _store_options(self) -> dict[str, Any]:
        """For s3fs: the AWS profile that platform.yaml names, if this machine has it; else the variables of the AWS clients; else the pods' Secret."""
        store, profile = self.environment.object_store, _profile(self.environment.access.profile)
        options: dict[str, Any] = {"client_kwargs": {"region_name": store.region}}
        if profile is not None:
            options["profile"] = self.environment.access.profile
        elif "AWS_ACCESS_KEY_ID" not in os.environ and store.existing_secret:
            options |= self._keys_of(store.existing_secret)
        if store.endpoint and not (profile and profile.get("endpoint_url")):
            options["endpoint_url"] = self.url(store.endpoint)
        return options

    def _keys_of(self, secret: str) -> dict[str, str]:
        try:
            data = json.loads(self.kubectl("get", "secret", secret, "-o", "json"))["data"]
            return {"key": base64.b64decode(data["AWS_ACCESS_KEY_ID"]).decode(), "secret": base64.b64decode(data["AWS_SECRET_ACCESS_KEY"]).decode()}
        except (CrisplineError, KeyError) as error:
            access = self.environment.access
            raise NotReachable(
                f"no credentials for the object store of {self.environment.name}: there is no AWS profile {access.profile or '(none named)'}, no "
                f"AWS_ACCESS_KEY_ID, and the Secret {access.namespace}/{secret} cannot be read ({error})\n"
                f"    remedy: make the profile (`aws configure --profile {access.profile or 'NAME'}`) or set the variables"
            ) from error


@contextmanager
def reached(environment: EnvironmentFile) -> Iterator[Reach]:
    """Reach an environment; what was started for it (port-forwards) ends with the block."""
    with ExitStack() as stack:
        yield Reach(environment, stack)


def cluster_service(address: str, namespace: str) -> ClusterService | None:
    """The Service that an address means: `http://name`, `name.namespace`, `name.namespace.svc` or with the cluster's domain; None for any other."""
    parts = urlsplit(address)
    labels = (parts.hostname or "").split(".")
    port = parts.port or _SCHEME_PORTS.get(parts.scheme, 0)
    if not port or not all(_LABEL.match(label) for label in labels[:2]) or labels[0].isdigit():
        return None
    match labels[1:]:
        case []:
            return ClusterService(labels[0], namespace, port)
        case [place] | [place, "svc"] | [place, "svc", "cluster", "local"]:
            return ClusterService(labels[0], place, port)
    return None


def resolves(host: str) -> bool:
    """Whether this machine knows an address of a host."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def kubectl(context: str, *arguments: str, seconds: float = 30.0) -> str:
    """What kubectl answers. Raises NotReachable when it is not installed, fails or does not answer."""
    command = _kubectl(context, *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotReachable(f"kubectl {' '.join(arguments[:4])} did not answer within {seconds:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotReachable(f"kubectl {' '.join(arguments[:5])}: {said}")
    return done.stdout


@contextmanager
def port_forward(service: ClusterService, context: str) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to a Service, as long as the block lasts. Raises NotReachable."""
    command = _kubectl(context, "-n", service.namespace, "port-forward", "--address", "127.0.0.1", f"svc/{service.name}", f":{service.port}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(_FORWARD_SECONDS, process.kill)
    timer.start()
    try:
        said = []
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            said.append(line.strip())
            if match := _FORWARDING.match(line):
                port = int(match[1])
                break
        timer.cancel()
        if not port:
            raise NotReachable(
                f"{service.name}.{service.namespace}:{service.port} is a Service of the cluster and cannot be forwarded: {said[-1] if said else 'no answer'}\n"
                "    remedy: check that it runs and that you may create pods/portforward there, or put an address into platform.yaml that is reachable from here"
            )
        threading.Thread(target=_drain, args=(process,), daemon=True).start()
        yield port
    finally:
        timer.cancel()
        process.terminate()
        process.wait(timeout=10)


def _drain(process: subprocess.Popen[str]) -> None:
    """kubectl says a line for every connection; a full pipe would stop it."""
    assert process.stdout is not None
    for _ in process.stdout:
        pass


def _kubectl(context: str, *arguments: str) -> list[str]:
    program = shutil.which("kubectl")
    if program is None:
        raise NotReachable("kubectl is not installed; see https://kubernetes.io/docs/tasks/tools/")
    return [program, *(["--context", context] if context else []), *arguments]


def _profile(name: str) -> dict[str, Any] | None:
    """A profile of this machine's AWS configuration; None where there is none of that name."""
    if not name or not any(Path(os.environ.get(variable, default)).expanduser().exists() for variable, default in _AWS_FILES.items()):
        return None
    from botocore.session import Session

    known: dict[str, Any] | None = Session().full_config["profiles"].get(name)
    return known


def _keys_of_profile(name: str) -> dict[str, str]:
    from botocore.session import Session

    session = Session(profile=name)
    credentials, endpoint = session.get_credentials(), session.get_scoped_config().get("endpoint_url", "")
    if credentials is None:
        raise NotReachable(f"the AWS profile {name} has no credentials; see `aws configure --profile {name}`")
    frozen = credentials.get_frozen_credentials()
    found = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
    found |= {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
    return found | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})


_AWS_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
