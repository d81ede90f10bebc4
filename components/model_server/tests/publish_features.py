"""Runs in the pipeline environment: puts a few rows of each flights view into Feast's online store. Argument: the state folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from feast.infra.provider import get_provider

from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.data_engineering.feature_repository import online_store, register_views

KEYS = {"origin": "JFK", "route": "JFK-BOS", "carrier_origin": "AA-JFK", "tailnum": "N1"}


def main(state: Path) -> None:
    platform, usecase = Platform.embedded(state), load_usecase("flights")
    store = online_store(platform)
    register_views(store, platform, usecase.config, usecase.features.views)
    provider = get_provider(store.config)
    for view in usecase.features.views:
        moment = pd.Timestamp("2013-04-01T10:00:00Z") if view.keyed_by_tick else pd.Timestamp("2013-04-01T00:00:00Z")
        row = {key: KEYS[key] for key in view.entity} | {"event_timestamp": moment}
        if view.keyed_by_tick:
            row[f"{view.name}_tick"] = int(moment.timestamp()) // int(view.cadence.total_seconds())
        row |= {name: 0.125 * number for number, name in enumerate(view.feature_names)}
        row[view.feature_names[-1]] = None if len(view.feature_names) > 2 else 3.5
        frame = pd.DataFrame([row]).astype({"event_timestamp": "datetime64[us, UTC]"} | dict.fromkeys(view.feature_names, "float64"))
        provider.ingest_df(store.get_feature_view(view.served_name), frame)
    (state / "platform.json").write_text(platform.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
