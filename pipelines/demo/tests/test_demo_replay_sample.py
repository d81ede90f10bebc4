"""Which rows are replayed: decided by the entity's name alone, in the right share, the same in every run."""

import subprocess
import sys

import pandas as pd
import pytest

from pipelines.demo.replay import Sample

pytestmark = pytest.mark.pipeline

ENTITIES = pd.Series([f"AA{number}-JFK-2013-04-01" for number in range(20_000)])


@pytest.mark.parametrize("share", [0.05, 0.125, 0.5])
def test_the_share_is_met_within_sampling_error(share: float) -> None:
    error = (share * (1 - share) / len(ENTITIES)) ** 0.5
    assert abs(Sample(share).of(ENTITIES).mean() - share) < 4 * error


def test_everything_and_nothing() -> None:
    assert Sample(1.0).of(ENTITIES).all()
    assert not Sample(0.0).of(ENTITIES).any()


def test_a_row_is_chosen_whatever_stands_beside_it() -> None:
    whole = Sample(0.125).of(ENTITIES)
    shuffled = ENTITIES.sample(frac=0.3, random_state=1)
    assert (Sample(0.125).of(shuffled) == whole.loc[shuffled.index]).all()


def test_a_larger_sample_holds_the_smaller_one() -> None:
    small, large = Sample(0.1).of(ENTITIES), Sample(0.2).of(ENTITIES)
    assert not (small & ~large).any()


def test_another_process_with_another_hash_seed_chooses_the_same_rows() -> None:
    code = "import pandas as pd; from pipelines.demo.replay import Sample; print(Sample(0.5).of(pd.Series([f'F{n}' for n in range(64)])).tolist())"
    other = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7", "PATH": ""}, check=True, capture_output=True, text=True).stdout
    assert other.strip() == str(Sample(0.5).of(pd.Series([f"F{number}" for number in range(64)])).tolist())
