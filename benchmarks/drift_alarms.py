"""Do drift alarms keep their promise, and do they still see what matters? Ours beside a library's default and a naive test, in one run.

    (cd benchmarks && uv sync) && (cd benchmarks/peers && uv sync)
    benchmarks/.venv/bin/python -m benchmarks.streams.export <folder>
    components/environments/monitoring/.venv/bin/python -m benchmarks.drift_alarms --real <folder> [--streams 400] [--repeats 20]

Mechanism (stated, generated): days share a weather that moves two of six numeric features, so rows of a day are dependent; 13% of x3 are
missing; a category of four, a segment of three; the model's probability depends on x0 and x2. Reference: 12 weeks; window: one week; 40
rows a day. Each stationary stream is a reference and one window of its own, so windows are independent, and the exact binomial interval
(Clopper and Pearson 1934) holds. Peers see the same rows: alibi-detect's `KSDrift` as it comes (Bonferroni over numeric features), Evidently's data
drift preset as it comes (its verdict on the data set, and whether any column drifts), and a Kolmogorov-Smirnov test of each feature at 5%.

Real streams move, so which alarms on them are false is not known. Here their windows are put into random order first: what is left of time is
what happens within a window. The first twelve calibrate, the others are tested, again and again; a window's rate of false alarms is its mean
over the orders in which it was tested, and the interval comes from drawing source windows with replacement.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import beta, ks_2samp

from components.contracts.loading import load_usecase
from components.monitoring.detectors.alibi import load_library
from components.monitoring.detectors.base import PROBABILITY
from components.monitoring.detectors.fitting import DetectorSet, fit

NUMERIC = tuple(f"x{number}" for number in range(6))
CATEGORICAL = ("carrier", "origin")
ROWS_A_DAY, REFERENCE_DAYS, WINDOW_DAYS = 40, 84, 7
START = "2013-01-03T00:00:00Z"  # a multiple of seven days since the epoch
MOST_WINDOWS = 6
CALIBRATING = 12  # windows of a real stream that calibrate
RESULT = Path(__file__).parent / "results" / "drift_alarms.md"
Verdict = Callable[[pd.DataFrame], bool]


@dataclass(frozen=True)
class Process:
    """What a period is drawn from. The defaults are the reference's."""

    mean: float = 0.0
    deviation: float = 1.0
    correlation: float = 0.6
    missing: float = 0.13
    carriers: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    odds: float = 0.0  # added to the log-odds: the class mix moves

    def draw(self, days: int, start: pd.Timestamp, random: np.random.Generator) -> pd.DataFrame:
        rows = days * ROWS_A_DAY
        moments = start + pd.to_timedelta(np.sort(random.uniform(0, days * 86_400, rows)), unit="s")
        day = np.asarray((moments - start).days)
        weather = random.normal(size=days)[day] * 0.5
        frame = pd.DataFrame({name: random.normal(size=rows) + (weather if number < 2 else 0) for number, name in enumerate(NUMERIC)})
        frame["x0"] = frame["x0"] * self.deviation + self.mean
        frame["x4"] = self.correlation * frame["x5"] + np.sqrt(1 - self.correlation**2) * frame["x4"]
        frame["carrier"] = random.choice(["AA", "B6", "DL", "UA"], size=rows, p=self.carriers)
        frame["origin"] = random.choice(["EWR", "JFK", "LGA"], size=rows)
        frame[PROBABILITY] = 1 / (1 + np.exp(1 - self.odds - 0.8 * frame["x0"] - 0.5 * frame["x2"]))
        frame.loc[random.uniform(size=rows) < self.missing, "x3"] = np.nan
        frame["prediction_moment"], frame["outside_training"] = moments, False
        return frame


SOUND = Process()
GRADED: dict[str, tuple[Process, ...]] = {
    "mean of x0, +0.1 / +0.25 / +0.5 / +1 deviations": tuple(Process(mean=size) for size in (0.1, 0.25, 0.5, 1.0)),
    "deviation of x0, times 1.25 / 1.5 / 2": tuple(Process(deviation=size) for size in (1.25, 1.5, 2.0)),
    "carrier UA, +5 / +10 / +20 points": tuple(Process(carriers=(0.4 - size, 0.3, 0.2, 0.1 + size)) for size in (0.05, 0.10, 0.20)),
    "log-odds, +0.25 / +0.5 / +1 (class mix)": tuple(Process(odds=size) for size in (0.25, 0.5, 1.0)),
    "missing x3, +5 / +10 / +30 points": tuple(Process(missing=0.13 + size) for size in (0.05, 0.10, 0.30)),
    "correlation of x4 and x5, 0.4 / 0.0 / -0.6": tuple(Process(correlation=size) for size in (0.4, 0.0, -0.6)),
}
GRADUAL = tuple(Process(mean=0.2 * number) for number in range(1, MOST_WINDOWS + 1))
SUDDEN = (Process(mean=0.8),) * MOST_WINDOWS
SEASONAL = tuple(Process(mean=0.8 * np.sin(np.pi * number / MOST_WINDOWS)) for number in range(1, MOST_WINDOWS + 1))


@dataclass
class Evidently:
    """The peer in a process of its own: it fits into no environment of crispline."""

    process: subprocess.Popen[str]
    folder: Path
    numeric: tuple[str, ...] = NUMERIC
    categorical: tuple[str, ...] = CATEGORICAL

    def against(self, reference: pd.DataFrame) -> Callable[[pd.DataFrame], dict[str, bool]]:
        """(window) -> its verdicts, asked once for each window."""
        reference.to_parquet(self.folder / "reference.parquet")
        asked: dict[int, dict[str, bool]] = {}

        def ask(window: pd.DataFrame) -> dict[str, bool]:
            if id(window) not in asked:
                asked.clear()
                window.to_parquet(self.folder / "window.parquet")
                files = {name: str(self.folder / f"{name}.parquet") for name in ("reference", "window")}
                assert self.process.stdin is not None and self.process.stdout is not None
                print(json.dumps({**files, "numeric": self.numeric, "categorical": self.categorical}), file=self.process.stdin, flush=True)
                asked[id(window)] = json.loads(self.process.stdout.readline())
            return asked[id(window)]

        return ask


@contextmanager
def evidently() -> Iterator[Evidently]:
    peers = Path(__file__).parent / "peers"
    command = [str(peers / ".venv" / "bin" / "python"), str(peers / "evidently_defaults.py")]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process,
    ):
        try:
            yield Evidently(process, Path(folder))
        finally:
            process.terminate()


def verdicts(reference: pd.DataFrame, peer: Evidently) -> Mapping[str, Verdict]:
    """Each alarm as a function of a window."""
    asked = peer.against(reference)
    monitoring = load_usecase("flights").config.monitoring
    fitted: DetectorSet = fit("benchmark", "m1", monitoring, reference, [*NUMERIC, *CATEGORICAL], list(CATEGORICAL))
    library = load_library().KSDrift(_filled(reference), p_val=0.05)
    return {
        "crispline": lambda window: any(result.alarm for result in fitted.test(window)),
        "Evidently, data set": lambda window: asked(window)["dataset"],
        "Evidently, any column": lambda window: asked(window)["column"],
        "alibi-detect KSDrift": lambda window: bool(library.predict(_filled(window))["data"]["is_drift"]),
        "KS per feature at 5%": lambda window: any(ks_2samp(reference[name].dropna(), window[name].dropna()).pvalue < 0.05 for name in NUMERIC),
    }


def _filled(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """alibi-detect takes no missing values; both sides are filled with the same constant."""
    return np.asarray(frame[list(NUMERIC)].fillna(0.0), dtype=np.float64)


def upper_end(alarms: int, windows: int, confidence: float = 0.95) -> float:
    """Upper end of the exact one-sided interval of a rate (Clopper and Pearson 1934)."""
    return 1.0 if alarms == windows else float(beta.ppf(confidence, alarms + 1, windows - alarms))


def stationary(streams: int, peer: Evidently) -> dict[str, int]:
    """False alarms in one window of each of `streams` streams."""
    found: dict[str, int] = {}
    for seed in range(streams):
        random = np.random.default_rng([1, seed])
        alarms = verdicts(SOUND.draw(REFERENCE_DAYS, pd.Timestamp(START), random), peer)
        window = SOUND.draw(WINDOW_DAYS, pd.Timestamp(START) + pd.Timedelta(days=REFERENCE_DAYS), random)
        for name, alarm in alarms.items():
            found[name] = found.get(name, 0) + alarm(window)
        if seed % 50 == 49:
            print(f"stationary: {seed + 1} of {streams} streams", flush=True)
    return found


def power(repeats: int, peer: Evidently) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, str]]]:
    """Share of single windows that alarm, by change, peer and grade; and windows until the first alarm, by kind of change and peer."""
    seen = {change: {} for change in GRADED}  # type: dict[str, dict[str, list[float]]]
    waits: dict[str, dict[str, list[int]]] = {}
    start = pd.Timestamp(START) + pd.Timedelta(days=REFERENCE_DAYS)
    for seed in range(repeats):
        random = np.random.default_rng([2, seed])
        alarms = verdicts(SOUND.draw(REFERENCE_DAYS, pd.Timestamp(START), random), peer)
        for change, grades in GRADED.items():
            for grade, process in enumerate(grades):
                window = process.draw(WINDOW_DAYS, start, random)
                for name, alarm in alarms.items():
                    seen[change].setdefault(name, [0.0] * len(grades))[grade] += alarm(window) / repeats
        for kind, course in (("sudden, +0.8", SUDDEN), ("gradual, +0.2 a window", GRADUAL), ("seasonal, half a sine of 0.8", SEASONAL)):
            windows = [process.draw(WINDOW_DAYS, start + pd.Timedelta(days=WINDOW_DAYS * number), random) for number, process in enumerate(course)]
            for name, alarm in alarms.items():
                first = next((number for number, window in enumerate(windows, 1) if alarm(window)), MOST_WINDOWS + 1)
                waits.setdefault(kind, {}).setdefault(name, []).append(first)
        print(f"power: {seed + 1} of {repeats}", flush=True)
    return seen, {kind: {name: _waited(found) for name, found in by.items()} for kind, by in waits.items()}


@dataclass(frozen=True)
class Shuffled:
    """One real stream in random orders: source windows, verdicts, mean rate of false alarms of crispline and of KS per feature, and the ends of the
    95 % interval of crispline's over source windows."""

    name: str
    windows: int
    tests: int
    rate: float
    low: float
    high: float
    naive: float


def shuffled(file: Path, orders: int) -> Shuffled:
    described = json.loads(file.with_suffix(".json").read_text())
    rows, names, categorical = pd.read_parquet(file), described["features"], described["categorical"]
    window = timedelta(days=described["window_days"])
    base = load_usecase("flights").config.monitoring
    detectors = [choice for choice in base.detectors if choice.subject != "segment_mix"]
    detectors += [choice.model_copy(update={"column": categorical[0]}) for choice in base.detectors if choice.subject == "segment_mix" and categorical][:1]
    monitoring = base.model_copy(update={"window": window, "detectors": detectors, "minimum_rows": 30})
    numeric = [name for name in names if name not in categorical]
    start = pd.Timestamp(0, tz="UTC")
    blocks = [part.assign(offset=part["moment"] - part["moment"].min().floor("D")) for _, part in rows.groupby("window")]

    def dated(part: pd.DataFrame, position: int) -> pd.DataFrame:
        moment = start + position * window + part["offset"].where(part["offset"] < window, pd.Timedelta(window) - pd.Timedelta(microseconds=1))
        return part.assign(prediction_moment=moment, outside_training=False).rename(columns={"probability": PROBABILITY})

    alarms = np.full((orders, len(blocks)), np.nan)
    naive = np.full((orders, len(blocks)), np.nan)
    for order in range(orders):
        random = np.random.default_rng([3, order])
        shuffle = random.permutation(len(blocks))
        reference = pd.concat([dated(blocks[block], position) for position, block in enumerate(shuffle[:CALIBRATING])], ignore_index=True)
        fitted = fit(file.stem, "m1", monitoring, reference, names, categorical)
        for position, block in enumerate(shuffle[CALIBRATING:], CALIBRATING):
            tested = dated(blocks[block], position)
            alarms[order, block] = any(result.alarm for result in fitted.test(tested))
            samples = ((reference[name].dropna(), tested[name].dropna()) for name in numeric)
            naive[order, block] = any(ks_2samp(known, now).pvalue < 0.05 for known, now in samples if len(known) and len(now))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a window that calibrated in every order has no rate
        by_window = np.nanmean(alarms, axis=0)
    drawn = np.random.default_rng(4).integers(0, len(blocks), size=(2000, len(blocks)))
    low, high = np.nanquantile(np.nanmean(by_window[drawn], axis=1), [0.025, 0.975])
    tests = int(np.isfinite(alarms).sum())
    print(f"{file.stem}: {np.nanmean(by_window):.3f} of {tests} verdicts", flush=True)
    return Shuffled(file.stem, len(blocks), tests, float(np.nanmean(by_window)), float(low), float(high), float(np.nanmean(naive)))


def _waited(firsts: list[int]) -> str:
    missed = sum(first > MOST_WINDOWS for first in firsts)
    return f"{np.median(firsts):.0f}" + (f" ({missed} of {len(firsts)} never)" if missed else "")


def report(
    streams: int, false: dict[str, int], repeats: int, seen: dict[str, dict[str, list[float]]], waits: dict[str, dict[str, str]], real: list[Shuffled]
) -> str:
    promise = 1 / load_usecase("flights").config.monitoring.false_alarms
    kept = upper_end(false["crispline"], streams) <= 1.25 * promise
    lines = [
        "# Drift alarms: the promise and the power", "", "Made by `python -m benchmarks.drift_alarms` in the monitoring environment; the mechanism stands there.", "",
        f"Promised: at most one false alarm in {1 / promise:.0f} windows, all detectors together. The upper end may be at most {1.25 * promise:.3f}: "
        + ("kept." if kept else "**not shown to be kept.**"), "",
        f"| on {streams} stationary streams, one window each | false alarms | rate | upper end, one-sided 95% |", "|---|---|---|---|",
        *(f"| {name} | {count} | {count / streams:.3f} | {upper_end(count, streams):.3f} |" for name, count in false.items()), "",
        f"| share of single changed windows that alarm ({repeats} repeats) | " + " | ".join(false) + " |", "|---|" + "---|" * len(false),
        *(f"| {change} | " + " | ".join(" / ".join(f"{value:.2f}" for value in by[name]) for name in false) + " |" for change, by in seen.items()), "",
        f"| windows until the first alarm, median of {repeats} | " + " | ".join(false) + " |", "|---|" + "---|" * len(false),
        *(f"| {kind} | " + " | ".join(by[name] for name in false) + " |" for kind, by in waits.items()), "",
        f"| real streams, windows in random order, {CALIBRATING} calibrate | source windows | verdicts | false alarms | 95% over source windows | KS per feature at 5% |",
        "|---|---|---|---|---|---|",
        *(f"| {one.name} | {one.windows} | {one.tests} | {one.rate:.3f} | {one.low:.3f} to {one.high:.3f} | {one.naive:.2f} |" for one in real), "",
        "A peer that alarms on every second unchanged window also alarms on every changed one: read its power beside its false alarms.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--real", type=Path, required=True, help="folder that benchmarks.streams.export wrote")
    parser.add_argument("--orders", type=int, default=10, help="random orders of each real stream's windows")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    real = [shuffled(file, given.orders) for file in sorted(given.real.glob("*.parquet"))]
    with evidently() as peer:
        false = stationary(given.streams, peer)
        seen, waits = power(given.repeats, peer)
    given.result.write_text(report(given.streams, false, given.repeats, seen, waits, real))
    print(given.result.read_text())


if __name__ == "__main__":
    main()
