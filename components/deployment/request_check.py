"""The check `request_validation`: what a release's contract does with malformed requests, as a record."""

from __future__ import annotations

from datetime import datetime

from components.contracts.records import Lineage, Record, record_id
from components.contracts.serving import ServingContract
from components.model_server.request_probes import probe


def request_check(contract: ServingContract, release: str, model_version: str, as_of: datetime) -> Record:
    """Evidence that the contract of `release` accepts what is right and refuses what is malformed, naming the field. Same inputs, same record."""
    results = probe(contract)
    wrong = [result for result in results if not result.passed]
    told = "; ".join(f"{result.name}: {result.found or 'accepted'} instead of {result.expected or 'accepted'}" for result in wrong[:5])
    return Record(
        kind="check",
        id=record_id("request_validation", release),
        usecase=contract.usecase,
        event_time=as_of,
        outcome="failed" if wrong else "passed",
        reason=told or f"{len(results)} requests: the well-formed were accepted, every malformed one was refused with the field at fault",
        inputs={"requests": len(results), "misjudged": len(wrong)},
        details={"check": "request_validation", "misjudged": [result.name for result in wrong]},
        lineage=Lineage(model_version=model_version, release=release),
    )
