"""Small pipelines for the tests of the local runner; no part of crispline's own."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.environments.images import step


@step("pipeline")
def write_numbers(usecase: str, count: int, numbers: Output[Dataset]) -> str:
    import os
    import sys
    from pathlib import Path

    Path(numbers.path).mkdir()
    (Path(numbers.path) / "numbers.txt").write_text("\n".join(str(number) for number in range(count)))
    print("platform:", os.environ["CRISPLINE_PLATFORM"])
    return str(Path(sys.prefix).parent.name)


@step("monitoring")
def add_up(numbers: Input[Dataset], total: Output[Artifact]) -> str:
    import sys
    from pathlib import Path

    text = (Path(numbers.path) / "numbers.txt").read_text()
    Path(total.path).write_text(str(sum(int(line) for line in text.split())))
    return str(Path(sys.prefix).parent.name)


@step("pipeline")
def decide(total: Input[Artifact], limit: float) -> str:
    from pathlib import Path

    return "above" if float(Path(total.path).read_text()) > limit else "below"


@step("pipeline")
def count_up(counter: str, needs: str = "") -> str:
    from pathlib import Path

    file = Path(counter)
    count = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(count))
    if needs and not Path(needs).exists():
        raise FileNotFoundError(f"{needs} is needed")
    return str(count)


@dsl.pipeline(name="toy")
def toy(usecase: str, limit: float, counter: str):
    written = write_numbers(usecase=usecase, count=10)
    added = add_up(numbers=written.outputs["numbers"])
    decided = decide(total=added.outputs["total"], limit=limit)
    with dsl.If(decided.output == "above"):
        counted = count_up(counter=counter)
        counted.set_caching_options(False)
        with dsl.If(counted.output != "0"):
            decide(total=added.outputs["total"], limit=0.0)


@dsl.pipeline(name="fragile")
def fragile(counter: str, effects: str, needs: str):
    first = count_up(counter=counter)
    effect = count_up(counter=effects).after(first)
    effect.set_caching_options(False)
    count_up(counter=f"{counter}.last", needs=needs).after(effect)


@step("pipeline")
def use_libraries(attempt: str) -> str:
    import tempfile

    import deltalake
    import duckdb
    import numpy
    import pandas
    import xgboost
    from sklearn.linear_model import LogisticRegression

    random = numpy.random.default_rng(0)
    values = random.normal(size=(2000, 20))
    assert (values.T @ values).shape == (20, 20)
    label = values[:, 0] > 0
    frame = pandas.DataFrame(values, columns=[f"x{number}" for number in range(20)])
    xgboost.train({"objective": "binary:logistic", "nthread": 2}, xgboost.DMatrix(frame, label), 5)
    LogisticRegression().fit(values, label)
    with tempfile.TemporaryDirectory() as folder:
        deltalake.write_deltalake(folder, frame)
        assert len(deltalake.DeltaTable(folder).to_pandas()) == 2000
    assert duckdb.sql("SELECT count(*) FROM frame").fetchall() == [(2000,)]
    return "done"


@step("monitoring")
def use_monitoring_libraries(attempt: str) -> str:
    import numpy
    from alibi_detect.cd import TabularDrift

    random = numpy.random.default_rng(0)
    reference = random.normal(size=(500, 3))
    assert TabularDrift(reference, p_val=0.01).predict(reference + 3)["data"]["is_drift"] == 1
    return "done"


@dsl.pipeline(name="busy")
def busy(attempt: str):
    use_libraries(attempt=attempt)
    use_monitoring_libraries(attempt=attempt)


@step("pipeline")
def wait_for(gate: str, after: str) -> str:
    import os
    import time
    from pathlib import Path

    Path(gate + ".waiting").write_text(str(os.getpid()))
    while not Path(gate).exists():
        time.sleep(0.05)
    return after


@dsl.pipeline(name="slow")
def slow(counter: str, gate: str):
    wait_for(gate=gate, after=count_up(counter=counter).output)


@step("pipeline")
def list_parts(count: int) -> list[int]:
    return list(range(count))


@step("pipeline")
def write_part(part: int, folder: str) -> str:
    from pathlib import Path

    print("part", part)
    (Path(folder) / f"{part}.txt").write_text(str(Path.cwd()))
    return str(part)


@dsl.pipeline(name="sharded")
def sharded(folder: str, count: int):
    parts = list_parts(count=count)
    with dsl.ParallelFor(items=parts.output, name="parts", parallelism=4) as part:
        write_part(part=part, folder=folder).set_caching_options(False)
