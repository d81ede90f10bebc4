"""Cases of `promtool test rules` for the chart model-server: series that must raise an alert, and series that must not."""

from __future__ import annotations

from typing import Any

_OF = 'namespace="crispline",usecase="flights"'


def cases(mode: str) -> list[dict[str, Any]]:
    """`mode`: deployment or seldon; what stands in front of the model exports other names."""
    front = (
        f'crispline_forwarder_requests_total{{{_OF},predictor="default",route="/api/v1.0/predictions",status="%s"}}'
        if mode == "deployment"
        else f'seldon_api_executor_server_requests_seconds_count{{{_OF},predictor="default",service="predictions",code="%s"}}'
    )
    ok, failed, refused = (_requests(reason) for reason in ("OK", "INTERNAL_ERROR", "WRONG_TYPE"))
    events = f'crispline_sidecar_events_total{{{_OF},pod="p",predictor="default",type="response"}}'
    rows, stale = (f'crispline_{name}_total{{{_OF},pod="p",predictor="default"}}' for name in ("predictions", "rows_stale"))
    drift, limit = (f'crispline_drift_{name}{{{_OF},detector="features",part="temp"}}' for name in ("statistic", "threshold"))
    assessed = f'{{{_OF},model_version="m",kind="measured",metric="roc_auc"}}'
    silence = f'crispline_sidecar_events_total{{{_OF},pod="q",predictor="default",type="response"}}'
    return [
        _case("CrisplineErrorRate", "15m", {ok: "0+60x30", failed: "0+6x30"}, fires=True),
        _case("CrisplineErrorRate", "15m", {ok: "0+60x30", refused: "0+60x30", failed: "0x30"}, fires=False),
        _case("CrisplineErrorRate", "15m", {front % "200": "0+60x30", front % "502": "0+6x30"}, fires=True),
        _case("CrisplineErrorRate", "15m", {front % "200": "0+60x30", front % "422": "0+60x30"}, fires=False),
        _case("CrisplineLatency", "30m", _latency(slow=6), fires=True),
        _case("CrisplineLatency", "30m", _latency(slow=0), fires=False),
        _case("CrisplineFeaturesStale", "60m", {rows: "0+60x60", stale: "0+6x60"}, fires=True),
        _case("CrisplineFeaturesStale", "60m", {rows: "0+60x60", stale: "0+1x60"}, fires=False),
        _case("CrisplineDrift", "5m", {drift: "2x10", limit: "1x10"}, fires=True),
        _case("CrisplineDrift", "5m", {drift: "0.5x10", limit: "1x10"}, fires=False),
        _case("CrisplineDrift", "5m", {drift: "2x10", limit: "0x10"}, fires=False),
        _case(
            "CrisplinePerformanceBelowThreshold",
            "5m",
            {f"crispline_performance{assessed}": "0.61x10", f"crispline_performance_threshold{assessed}": "0.67x10"},
            fires=True,
        ),
        _case(
            "CrisplinePerformanceBelowThreshold",
            "5m",
            {f"crispline_performance{assessed}": "0.70x10", f"crispline_performance_threshold{assessed}": "0.67x10"},
            fires=False,
        ),
        _case("CrisplineWindowOverdue", "13d", {f"crispline_sidecar_closed_until_seconds{{{_OF}}}": "1x20000"}, fires=True),
        _case("CrisplineWindowOverdue", "5d", {f"crispline_sidecar_closed_until_seconds{{{_OF}}}": "1x20000"}, fires=False),
        _case("CrisplineSidecarSilent", "40m", {ok: "0+60x60", events: "0x60"}, fires=True),
        _case("CrisplineSidecarSilent", "40m", {ok: "0+60x60"}, fires=True),
        _case("CrisplineSidecarSilent", "40m", {ok: "0+60x60", silence: "0+60x60"}, fires=True),
        _case("CrisplineSidecarSilent", "40m", {ok: "0+60x60", events: "0+60x60"}, fires=False),
        _case("CrisplineSidecarSilent", "40m", {ok: "0x60", events: "0x60"}, fires=False),
        _case("CrisplineEventsLost", "60m", {ok: "0+60x60", events: "0+54x60"}, fires=True),
        _case("CrisplineEventsLost", "60m", {ok: "0+60x60", events: "0+60x60"}, fires=False),
        _case("CrisplineEventsLost", "60m", {f"crispline_sidecar_answers_lost_total{{{_OF}}}": "0+1x60"}, fires=True),
        _case("CrisplineAlertsUndelivered", "90m", {f"crispline_sidecar_alerts_pending{{{_OF}}}": "1x100"}, fires=True),
        _case("CrisplineAlertsUndelivered", "90m", {f"crispline_sidecar_alerts_pending{{{_OF}}}": "0x100"}, fires=False),
    ]


def _requests(reason: str) -> str:
    return f'crispline_requests_total{{{_OF},pod="p",predictor="default",reason="{reason}"}}'


def _latency(slow: int) -> dict[str, str]:
    """60 requests a minute, `slow` of them above a second."""

    def bucket(le: str) -> str:
        return f'crispline_request_seconds_bucket{{{_OF},pod="p",predictor="default",le="{le}"}}'

    return {bucket("0.05"): f"0+{60 - slow}x60", bucket("1"): f"0+{60 - slow}x60", bucket("2"): "0+60x60", bucket("+Inf"): "0+60x60"}


def _case(alert: str, at: str, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """promtool compares labels and annotations in full, so the test asks for the number of alerts instead, by promtool's own series ALERTS."""
    expression = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if fires else []
    return {
        "interval": "1m",
        "name": f"{alert} {'fires' if fires else 'stays quiet'}: {sorted(series)}",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": at, "exp_samples": samples}],
    }
