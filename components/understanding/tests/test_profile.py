"""The profile is one page that shows what it promises and needs no network."""

from __future__ import annotations

import re

import numpy as np
import pytest

from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
from components.understanding.profile import profile_page

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def case(flights):
    frame = flight_rows(flights, 2000)
    return frame, manifest_of(flights, frame)


@pytest.fixture(scope="module")
def html(flights, case) -> str:
    return profile_page(flights, *case)


def test_it_needs_no_network_and_no_script(html) -> None:
    references = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(reference.startswith("#") for reference in references)
    assert "<script" not in html
    assert "url(http" not in html


def test_every_figure_of_the_promise_is_there(html, flights) -> None:
    for heading in ("Label over time", "What goes along with the label", "Missing values", "Distributions"):
        assert f"<h2>{heading}</h2>" in html
    assert html.count("<svg") == 4
    assert html.count('role="img"') == 4
    drawn = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", html))
    for name in flights.features.feature_names:
        assert name in drawn


def test_it_says_which_data_it_describes(html, case) -> None:
    assert case[1].content_hash in html
    assert case[1].data_version.id in html


def test_counts_of_outcomes_without_label_are_shown(html, case) -> None:
    assert f'<td>cancelled</td><td class="number">{case[1].outcomes["cancelled"]}</td>' in html


def test_missing_values_are_shown_by_feature(flights, case) -> None:
    frame = case[0].copy()
    frame["seats"] = np.nan
    html = profile_page(flights, frame, case[1])
    assert "100.0%" in html


def test_the_same_data_give_the_same_page(flights, case, html) -> None:
    assert profile_page(flights, *case) == html


def test_a_dataset_without_labels_is_described_as_far_as_it_can_be(flights, case) -> None:
    frame = case[0].copy()
    frame["label"] = frame["label"].where(frame["label"].isna())
    html = profile_page(flights, frame, manifest_of(flights, frame))
    assert "too few labels" in html
    assert "Missing values" in html
