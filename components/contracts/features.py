"""The declarative language of a use case's `features.py`.

A feature view says *what* is known about an entity, from which group of source columns, and *when it is published*. It holds no code
and no Feast object; `components.data_engineering` computes the values and builds Feast's objects from it.

A feature's event timestamp is the moment of its publication: the first tick of the view's cadence at which every value that went
into it was known. A point-in-time join on that timestamp therefore gives offline exactly what the online store held at that moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.contracts.durations import Duration


class Declaration(BaseModel):
    """Frozen and closed: an unknown key is an error, not a typo that is silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Aggregate(Declaration):
    """A statistic over the values that became known in the `window` before publication.

    `mean`, `std`, `count`: of a numeric column. `share_above`: share of values above `threshold`. `share_true`: share of true values.
    Null values do not enter. `shrink` pulls the statistic toward the mean over all entities with the weight of that many observations
    (a route with three flights is not 100% late).
    """

    kind: Literal["aggregate"] = "aggregate"
    name: str
    column: str
    function: Literal["mean", "std", "count", "share_above", "share_true"]
    window: Duration
    threshold: float | None = None
    shrink: float = 0.0


class Latest(Declaration):
    """The value known last before publication; `max_age` makes it null when it is older than that."""

    kind: Literal["latest"] = "latest"
    name: str
    column: str
    max_age: Duration | None = None


Feature = Annotated[Aggregate | Latest, Field(discriminator="kind")]


class FeatureView(Declaration):
    """What is published together about one kind of entity.

    `entity`: join keys, columns of `table`. `group`: the known-at group of `table` that all columns come from.
    `cadence`: how often it is published. A view faster than daily must be `keyed_by_tick`: the tick (UTC, whole multiples of the
    cadence since the epoch) is then part of its key, so publishing a later tick overwrites nothing and a request can only reach the
    tick of its own prediction moment. `max_staleness`: a served value older than that counts as missing, with a warning in the answer.
    """

    name: str
    table: str
    group: str
    entity: tuple[str, ...]
    cadence: Duration
    features: tuple[Feature, ...]
    keyed_by_tick: bool = False
    max_staleness: Duration
    description: str = ""

    @property
    def definition_hash(self) -> str:
        """Twelve hex digits over the whole definition; part of the view's name in Feast, so that two definitions are served side by side."""
        canonical = json.dumps(self.model_dump(mode="json", exclude={"description"}), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def served_name(self) -> str:
        """The view's name in Feast."""
        return f"{self.name}__{self.definition_hash}"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def overwrites(self) -> bool:
        """Whether publishing replaces the value that is served for a key (then a batch of requests must not cross a publication)."""
        return not self.keyed_by_tick


class FeatureSet(Declaration):
    """All that a model may see: the views and the request-time fields, in the order of the model's columns.

    `request_fields`: columns of the prediction table that the caller sends with the request (known at the prediction moment).
    """

    views: tuple[FeatureView, ...]
    request_fields: tuple[str, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The model's input columns, in order: request-time fields first, then each view's features."""
        return self.request_fields + tuple(name for view in self.views for name in view.feature_names)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """Entity columns that a request by key must carry, without repetition, in order of first use."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.entity))

    def used_by_view(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """By view, those of its features that are among `names`; views without any are left out."""
        used = set(names)
        found = {view.name: tuple(name for name in view.feature_names if name in used) for view in self.views}
        return {view: features for view, features in found.items() if features}

    @property
    def definition_hash(self) -> str:
        parts = [view.served_name for view in self.views] + list(self.request_fields)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


DAILY = timedelta(days=1)
