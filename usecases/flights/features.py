"""What the model may see of a flight two hours before its scheduled departure."""

from datetime import timedelta

from components.contracts.features import Aggregate, FeatureSet, FeatureView, Latest

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

airport_weather = FeatureView(
    name="airport_weather",
    description="The last weather observation published at the airport of departure.",
    table="weather",
    group="observation",
    entity=("origin",),
    cadence=HOUR,
    keyed_by_tick=True,
    max_staleness=6 * HOUR,
    features=tuple(Latest(name=column, column=column, max_age=6 * HOUR) for column in ("temp", "humid", "wind_speed", "precip", "pressure", "visib")),
)

airport_departures = FeatureView(
    name="airport_departures",
    description="How the airport runs right now: departures of the last hours, as its board shows them.",
    table="flights",
    group="departure",
    entity=("origin",),
    cadence=HOUR,
    keyed_by_tick=True,
    max_staleness=6 * HOUR,
    features=(
        Aggregate(name="origin_delay_2h", column="dep_delay", function="mean", window=2 * HOUR),
        Aggregate(name="origin_delay_6h", column="dep_delay", function="mean", window=6 * HOUR),
        Aggregate(name="origin_late_share_6h", column="dep_delay", function="share_above", threshold=15.0, window=6 * HOUR),
        Aggregate(name="origin_cancelled_6h", column="cancelled", function="share_true", window=6 * HOUR),
    ),
)

route_history = FeatureView(
    name="route_history",
    description="Official arrival figures of the route in the last four weeks.",
    table="flights",
    group="outcome",
    entity=("route",),
    cadence=7 * DAY,
    max_staleness=15 * DAY,
    features=(
        Aggregate(name="route_arrival_delay", column="arr_delay", function="mean", window=28 * DAY, shrink=20),
        Aggregate(name="route_late_share", column="arr_delay", function="share_above", threshold=15.0, window=28 * DAY, shrink=20),
    ),
)

carrier_history = FeatureView(
    name="carrier_history",
    description="Departures of the carrier at the airport in the last day and week.",
    table="flights",
    group="departure",
    entity=("carrier_origin",),
    cadence=DAY,
    max_staleness=3 * DAY,
    features=(
        Aggregate(name="carrier_delay_1d", column="dep_delay", function="mean", window=DAY, shrink=5),
        Aggregate(name="carrier_delay_7d", column="dep_delay", function="mean", window=7 * DAY, shrink=10),
        Aggregate(name="carrier_late_share_7d", column="dep_delay", function="share_above", threshold=15.0, window=7 * DAY, shrink=10),
    ),
)

plane = FeatureView(
    name="plane",
    description="Age and size of the assigned aircraft.",
    table="planes",
    group="register",
    entity=("tailnum",),
    cadence=7 * DAY,
    max_staleness=400 * DAY,
    features=(Latest(name="built", column="built"), Latest(name="seats", column="seats")),
)

FEATURES = FeatureSet(
    views=(airport_weather, airport_departures, route_history, carrier_history, plane),
    request_fields=("carrier", "origin", "month", "weekday", "dep_minute", "arr_minute", "distance", "scheduled_minutes", "scheduled_departures"),
)
