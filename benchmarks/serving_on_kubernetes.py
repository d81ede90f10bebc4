"""What serving costs on a real cluster: pod start, requests a second and 99th percentile with and without the sidecar, dropped requests.

Run in the pipeline environment, with KUBECONFIG and CRISPLINE_IMAGE_LOAD as for `make test-cluster`:
components/environments/pipeline/.venv/bin/python -m benchmarks.serving_on_kubernetes [--seconds 20] [--rounds 3] [--output FILE]

One predictor, one replica, one row a request with complete features, clients in a pod of the same node. With and without the sidecar take turns,
so that both meet the same machine. What is measured is crispline's forwarder in front of the model server, not Seldon's executor.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pipelines.images import IMAGE_LOAD_VARIABLE, build
from tests.cluster.access import Cluster
from tests.cluster.served_model import NAME, PREDICTORS, USECASE, ServedModel, make_releases, platform_of_files, put_on_volume, values_of_test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the table there, too")
    given = parser.parse_args()
    images = {name: build(name, USECASE, template=os.environ[IMAGE_LOAD_VARIABLE]) for name in ("serving", "monitoring")}
    kube, namespace = Cluster(), f"crispline-benchmark-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    try:
        with tempfile.TemporaryDirectory() as folder:
            releases, contract = make_releases(Path(folder))
            served = ServedModel(kube, helm, namespace, images, releases, contract, values_of_test(images))
            put_on_volume(served, Path(folder))
        kube.apply(platform_of_files(), namespace=namespace)
        lines = measure(served, given.seconds, given.rounds, given.clients)
    finally:
        kube.delete("v1", "Namespace", namespace)
    print("\n".join(lines))
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


def helm(*arguments: str, **options: Any) -> str:
    return str(subprocess.run(["helm", *arguments], check=True, capture_output=True, text=True, **options).stdout)


def measure(served: ServedModel, seconds: float, rounds: int, clients: int) -> list[str]:
    """A Markdown table, one row a case: the median over the rounds."""
    starts: dict[bool, list[float]] = {True: [], False: []}
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for number in range(rounds):
        for sidecar in (True, False) if number % 2 == 0 else (False, True):
            served.install(served.releases[0], replicas=1, sidecar={**served.values["sidecar"], "enabled": sidecar})
            (pod,) = served.kube.ready(served.namespace, PREDICTORS, 1)
            ready = next(each for each in pod.status.conditions if each.type == "Ready").last_transition_time
            starts[sidecar].append((ready - pod.metadata.creation_timestamp).total_seconds())
            with served.load(seconds=3, clients=clients, prefix=f"warm-{number}-{sidecar}") as load:
                load.result()
            with served.load(seconds=seconds, clients=clients, prefix=f"round-{number}-{sidecar}") as load:
                found[sidecar].append(load.result())
    lines = [
        f"Deployment mode, {NAME}, one replica, {clients} clients with kept-alive connections, {rounds} rounds of {seconds:g} s, {os.cpu_count()} cores; medians.",
        "",
        "| | requests/s | p50 ms | p99 ms | dropped | pod ready after s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for sidecar in (True, False):
        row = {key: statistics.median(each[key] for each in found[sidecar]) for key in ("requests_per_second", "p50_ms", "p99_ms")}
        dropped, requests = sum(each["failed"] for each in found[sidecar]), sum(each["requests"] for each in found[sidecar])
        lines.append(
            f"| {'with' if sidecar else 'without'} the sidecar | {row['requests_per_second']:.0f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} "
            f"| {dropped} of {requests} | {statistics.median(starts[sidecar]):.0f} |"
        )
    return lines


if __name__ == "__main__":
    main()
