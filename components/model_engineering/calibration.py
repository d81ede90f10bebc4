"""Probability calibration, and where its rows come from.

The validation period is cut in two by time. Tuning and early stopping see the earlier part; the calibrator sees the later part alone,
because on the rows that chose the model its probabilities look better than they are. The price: half the rows for each of the two
purposes. In return the calibration rows are new to the model and the closest to the period that it will serve.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from components.contracts.errors import InvalidData
from components.model_engineering.rows import LabelledRows
from components.model_server.scoring import Calibrator, logit

Vector = npt.NDArray[np.float64]


def split_validation(rows: LabelledRows) -> tuple[LabelledRows, LabelledRows]:
    """(stopping rows, calibration rows): before and from the median prediction moment on.

    Raises InvalidData when a part lacks a class.
    """
    moments = rows.frame["prediction_moment"]
    later = (moments >= moments.quantile(0.5, interpolation="higher")).to_numpy()
    parts = rows.where(~later), rows.where(later)
    for name, part in zip(("earlier", "later"), parts, strict=True):
        if len(part) == 0 or part.label.min() == part.label.max():
            raise InvalidData(f"the {name} half of the validation period has {len(part)} labelled rows without both classes; enlarge model.validation_share")
    return parts


def fit_calibrator(kind: Literal["isotonic", "sigmoid"], probability: Vector, label: Vector) -> Calibrator:
    """Fit on raw probabilities [rows] and labels [rows]; both kinds keep the ranking (strictly increasing), so no metric of ranking changes."""
    return _isotonic(probability, label) if kind == "isotonic" else _sigmoid(probability, label)


def _isotonic(probability: Vector, label: Vector) -> Calibrator:
    """Centred isotonic regression (Oron & Flournoy 2017, https://doi.org/10.1080/19466315.2017.1286256).

    Each block of the isotonic fit becomes one knot at its mean, with lines between: plain isotonic regression would tie all rows of a
    block. One pseudo-observation of the average label at either end keeps every block off 0 and 1; beyond the outer knots the line goes
    on to (0, 0) and (1, 1).
    """
    from sklearn.isotonic import IsotonicRegression

    share = float(label.mean())
    x = np.concatenate([[0.0], probability, [1.0]])
    y = np.concatenate([[share], label, [share]])
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(x, y)
    order = np.argsort(x, kind="stable")
    x, fitted = x[order], fitted[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(fitted) > 1e-12]))
    sizes = np.diff(np.append(starts, len(x)))
    knots_x, knots_y = np.add.reduceat(x, starts) / sizes, np.add.reduceat(fitted, starts) / sizes
    return Calibrator(kind="isotonic", x=(0.0, *map(float, knots_x), 1.0), y=(0.0, *map(float, knots_y), 1.0))


def _sigmoid(probability: Vector, label: Vector) -> Calibrator:
    """Platt scaling on log odds, with Platt's smoothed targets (Platt 1999), by damped Newton steps."""
    positives, negatives = label.sum(), len(label) - label.sum()
    target = np.where(label > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logit(probability), np.ones(len(label))])
    weights = np.array([1.0, 0.0])
    loss = _cross_entropy(design @ weights, target)
    for _ in range(100):
        fitted = np.exp(-np.logaddexp(0, -design @ weights))
        hessian = (design * (fitted * (1 - fitted))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (fitted - target))
        # Where probabilities are saturated a full Newton step overshoots; the loss is convex, so halving finds a better point.
        while (moved := _cross_entropy(design @ (weights - step), target)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        weights, loss = weights - step, moved
        if np.abs(step).max() < 1e-10:
            break
    if weights[0] <= 0:
        raise InvalidData("on the calibration rows higher scores go with fewer positive labels; the model ranks no better than chance, so calibrate nothing")
    return Calibrator(kind="sigmoid", a=float(weights[0]), b=float(weights[1]))


def _cross_entropy(odds: Vector, target: Vector) -> float:
    return float(np.sum(np.logaddexp(0, odds) - target * odds))


def log_loss(probability: Vector, label: Vector) -> float:
    """Mean negative log likelihood; probabilities are kept 1e-15 off 0 and 1."""
    clipped = np.clip(probability, 1e-15, 1 - 1e-15)
    return float(-np.mean(label * np.log(clipped) + (1 - label) * np.log1p(-clipped)))
