"""Calls, errors and slow calls of each predictor: from Prometheus, or from the pods' own metrics where there is none.

Two histograms are known, both with the same bucket limits: that of crispline's forwarder and that of Seldon's executor 1.19
(executor/api/metric/server.go). A source keeps nothing: `mark()` says where the counters stand, in a form that a record holds, and
`since(mark)` what came after it.
"""

from __future__ import annotations

import math
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.deployment.canary.judgement import Calls

_TIMEOUT_SECONDS = 5.0
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{(?P<labels>.*)\} (?P<value>[^ ]+)(?: \d+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_FAILED = 400  # any status from here on: a challenger that refuses what the champion answers is as harmful as one that breaks


class NoCalls(CrisplineError):
    """The source of call counts does not answer; nothing is judged without it."""


@dataclass(frozen=True)
class Histogram:
    """How a serving process names its histogram of answered calls. `route`: label and value that pick predictions."""

    name: str
    predictor: str
    status: str
    route: tuple[str, str]


HISTOGRAMS: dict[str, Histogram] = {
    "forwarder": Histogram("crispline_forwarder_seconds", "predictor", "status", ("route", "/api/v1.0/predictions")),
    "executor": Histogram("seldon_api_executor_server_requests_seconds", "predictor_name", "code", ("service", "predictions")),
}


class PrometheusCalls(BaseModel):
    """Counts from a Prometheus server. `selector`: labels that pick this use case's pods, e.g. {namespace: flights-prod}."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["prometheus"]
    url: str = Field(pattern=r"^https?://")
    histogram: Literal["forwarder", "executor"] = "forwarder"
    selector: dict[str, str] = Field(default_factory=dict)


class PodCalls(BaseModel):
    """Counts read from the pods. `addresses`: by predictor the URL of its metrics; a name that resolves to several addresses means them all."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["pods"]
    addresses: dict[str, Annotated[str, Field(pattern=r"^http://")]]
    histogram: Literal["forwarder", "executor"] = "forwarder"


CallOptions = Annotated[PrometheusCalls | PodCalls, Field(discriminator="kind")]


class CallSource(Protocol):
    """Raises NoCalls when the counts cannot be had."""

    def mark(self) -> JsonValue: ...

    def since(self, mark: JsonValue) -> dict[str, Calls]:
        """Calls by predictor after `mark`; a predictor without any is absent or zero."""
        ...


def call_source(options: PrometheusCalls | PodCalls, slow_seconds: float) -> CallSource:
    if isinstance(options, PrometheusCalls):
        return Prometheus(options, slow_seconds)
    return Pods(options, slow_seconds)


class Prometheus:
    """A mark is a moment; what came since is `increase` over the time from there to now.

    `increase` extrapolates by up to a scrape interval at each end, all series alike: over a stage of minutes counts are a few percent too high,
    shares are right.
    """

    def __init__(self, options: PrometheusCalls, slow_seconds: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._options, self._slow, self._now = options, slow_seconds, now
        self._histogram = HISTOGRAMS[options.histogram]

    def mark(self) -> JsonValue:
        return format_moment(self._now())

    def since(self, mark: JsonValue) -> dict[str, Calls]:
        now = self._now()
        seconds = max(1, math.ceil((now - parse_moment(str(mark))).total_seconds()))
        histogram, by = self._histogram, f"{self._histogram.predictor}, {self._histogram.status}"
        counts = self._query(f"sum by ({by}) (increase({histogram.name}_count{{{self._labels()}}}[{seconds}s]))", now)
        within = self._query(f"sum by ({by}, le) (increase({histogram.name}_bucket{{{self._labels()}}}[{seconds}s]))", now)
        edges = {float(labels["le"]) for labels, _ in within}
        limit = _limit(edges, self._slow) if edges else self._slow
        totals: dict[str, float] = defaultdict(float)
        errors: dict[str, float] = defaultdict(float)
        fast: dict[str, float] = defaultdict(float)
        for labels, value in counts:
            totals[labels[histogram.predictor]] += value
            errors[labels[histogram.predictor]] += value if int(labels[histogram.status]) >= _FAILED else 0.0
        for labels, value in within:
            fast[labels[histogram.predictor]] += value if float(labels["le"]) == limit else 0.0
        return {name: _calls(totals[name], errors[name], totals[name] - fast[name]) for name in totals}

    def _labels(self) -> str:
        selector = {**self._options.selector, self._histogram.route[0]: self._histogram.route[1]}
        return ", ".join(f'{name}="{value}"' for name, value in selector.items())

    def _query(self, query: str, at: datetime) -> list[tuple[dict[str, str], float]]:
        try:
            answer = httpx.get(
                f"{self._options.url.rstrip('/')}/api/v1/query", params={"query": query, "time": f"{at.timestamp():.3f}"}, timeout=_TIMEOUT_SECONDS
            )
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise NoCalls(f"Prometheus at {self._options.url} does not answer: {error}\n    remedy: check `calls.url` and the network policy") from error
        if document.get("status") != "success":
            raise NoCalls(f"Prometheus at {self._options.url} refused {query!r}: {document.get('error', answer.text[:200])}")
        return [(series["metric"], float(series["value"][1])) for series in document["data"]["result"]]


class Pods:
    """A mark holds the counters of every pod. A counter that stands lower than in the mark was reset: then it counts from zero.

    What a pod counted is gone with the pod, so calls of pods that end between two looks are missed; Prometheus keeps them.
    """

    def __init__(self, options: PodCalls, slow_seconds: float, resolve: Callable[[str, int], Iterable[str]] | None = None) -> None:
        self._options, self._slow, self._resolve = options, slow_seconds, resolve or _addresses
        self._histogram = HISTOGRAMS[options.histogram]

    def mark(self) -> JsonValue:
        return {predictor: {pod: [calls.total, calls.errors, calls.slow] for pod, calls in pods.items()} for predictor, pods in self._read().items()}

    def since(self, mark: JsonValue) -> dict[str, Calls]:
        before = mark if isinstance(mark, dict) else {}
        found: dict[str, Calls] = {}
        for predictor, pods in self._read().items():
            known = before.get(predictor)
            parts = [_after(calls, known.get(pod) if isinstance(known, dict) else None) for pod, calls in pods.items()]
            found[predictor] = Calls(*(sum(column) for column in zip(*parts, strict=True))) if parts else Calls(0, 0, 0)
        return found

    def _read(self) -> dict[str, dict[str, Calls]]:
        return {predictor: self._pods(predictor, url) for predictor, url in self._options.addresses.items()}

    def _pods(self, predictor: str, url: str) -> dict[str, Calls]:
        """Counts by pod address; none for a name that does not resolve, because a predictor without pods has no calls.

        A pod that is starting or ending does not answer and is left out. Raises NoCalls when none of several does.
        """
        parts = urlsplit(url)
        port, silent = parts.port or 80, ""
        found = {}
        for address in self._resolve(parts.hostname or "", port):
            host = f"[{address}]" if ":" in address else address
            try:
                answer = httpx.get(f"http://{host}:{port}{parts.path or '/metrics'}", timeout=_TIMEOUT_SECONDS, trust_env=False)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                silent = f"{host}:{port}: {error}"
                continue
            found[f"{host}:{port}"] = count_calls(answer.text, self._histogram, predictor, self._slow)
        if silent and not found:
            raise NoCalls(f"the metrics of {predictor} cannot be read ({silent})\n    remedy: check `calls.addresses` and the network policy")
        return found


def count_calls(text: str, histogram: Histogram, predictor: str, slow_seconds: float) -> Calls:
    """Calls of one predictor in a page of metrics (Prometheus' text format). Raises NoCalls when the histogram lacks the limit of slow calls."""
    total = errors = 0.0
    within: dict[float, float] = defaultdict(float)
    for line in text.splitlines():
        match = _LINE.match(line) if line.startswith(histogram.name) else None
        if match is None:
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get(histogram.predictor) != predictor or labels.get(histogram.route[0]) != histogram.route[1]:
            continue
        value = float(match["value"])
        if match["name"] == f"{histogram.name}_count":
            total += value
            errors += value if int(labels[histogram.status]) >= _FAILED else 0.0
        elif match["name"] == f"{histogram.name}_bucket":
            within[float(labels["le"])] += value
    fast = within[_limit(within, slow_seconds)] if within else 0.0
    return _calls(total, errors, total - fast)


def _limit(edges: Iterable[float], slow_seconds: float) -> float:
    known = sorted(edges)
    if slow_seconds not in known:
        raise NoCalls(
            f"slow_seconds {slow_seconds:g} is no bucket limit of the latency histogram\n"
            f"    remedy: use one of {', '.join(f'{each:g}' for each in known if math.isfinite(each))}"
        )
    return slow_seconds


def _after(now: Calls, known: JsonValue) -> tuple[int, int, int]:
    counters = (now.total, now.errors, now.slow)
    if not isinstance(known, list) or len(known) != len(counters):
        return counters
    before = [int(each) if isinstance(each, int | float) else 0 for each in known]
    if now.total < before[0]:
        return counters
    return now.total - before[0], max(0, now.errors - before[1]), max(0, now.slow - before[2])


def _calls(total: float, errors: float, slow: float) -> Calls:
    whole = round(total)
    return Calls(whole, min(whole, round(errors)), min(whole, max(0, round(slow))))


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return sorted({str(each[4][0]) for each in found})


def calls_of(counted: Mapping[str, Calls], predictor: str) -> Calls:
    return counted.get(predictor, Calls(0, 0, 0))
