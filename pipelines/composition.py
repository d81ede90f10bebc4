"""What training and retraining have in common, once: from a recorded data version to a promoted release."""

from kfp import dsl
from kfp.dsl import pipeline_task

from components.data_engineering.component import load_data_version, resolve_data_version
from components.data_engineering.features_component import build_features
from components.deployment.component import bundle, current_champion, promote, register
from components.evaluation.component import evaluate, judge
from components.model_engineering.component import track, train, tune
from components.monitoring.component import fit_detectors
from components.understanding.component import assess_feasibility, profile
from pipelines.caching import always


def build_and_release(usecase: str, as_of: str, training_start: str, environment: str, cause: str, trials: int, data_version: str, champion: str) -> None:
    """Resolve, features, profile and feasibility; if go: tune, train, track, evaluate, judge; if passed: register, bundle, promote.

    A no-go and a refusal by the gates end the run successfully, with a record. Called inside a pipeline; the arguments are its channels.
    `data_version` and `champion` are what whoever asks for the run saw, so that they stand among its parameters: the version with that id is
    trained on; the challenger is compared with the release in force, and the log says when that is another. Both may be empty.
    """
    resolved = always(resolve_data_version(usecase=usecase, as_of=as_of, wanted=data_version))
    loaded = load_data_version(usecase=usecase, id=resolved.outputs["Output"])
    built = build_features(usecase=usecase, data_version=loaded.outputs["data_version"], training_start=training_start)
    data = {"usecase": usecase, "dataset": built.outputs["dataset"], "manifest": built.outputs["manifest"]}
    profile(**data)
    feasible = assess_feasibility(**data)
    with dsl.If(feasible.outputs["Output"] == "go", name="feasible"):
        in_force = always(current_champion(usecase=usecase, environment=environment, expected=champion))
        tuned = tune(**data, trials=trials)
        trained = train(**data, best=tuned.outputs["best"])
        models = {"model": trained.outputs["model"], "baseline": trained.outputs["baseline"]}
        tracked = track(**data, **models, best=tuned.outputs["best"], cause=cause)
        evaluated = evaluate(**data, **models, champion=in_force.output)
        judged = judge(usecase=usecase, evaluation=evaluated.outputs["evaluation"], cause=cause)
        with dsl.If(judged.outputs["Output"] == "passed", name="passed"):
            release(usecase, as_of, environment, cause, built, trained, tracked, evaluated, judged)


def release(
    usecase: str,
    as_of: str,
    environment: str,
    cause: str,
    built: pipeline_task.PipelineTask,
    trained: pipeline_task.PipelineTask,
    tracked: pipeline_task.PipelineTask,
    evaluated: pipeline_task.PipelineTask,
    judged: pipeline_task.PipelineTask,
) -> None:
    """From a model that passed its gates to a promoted release."""
    model, gates = trained.outputs["model"], judged.outputs["gates"]
    detectors = fit_detectors(usecase=usecase, dataset=built.outputs["dataset"], model=model)
    registered = always(register(usecase=usecase, model=model, tracked=tracked.outputs["tracked"], gates=gates, as_of=as_of))
    bundled = bundle(
        usecase=usecase,
        dataset=built.outputs["dataset"],
        manifest=built.outputs["manifest"],
        model=model,
        evaluation=evaluated.outputs["evaluation"],
        gates=gates,
        detectors=detectors.outputs["detectors"],
        model_card=evaluated.outputs["model_card"],
        cause=cause,
        as_of=as_of,
    )
    always(promote(usecase=usecase, environment=environment, release=bundled.output, cause=cause, as_of=as_of).after(registered))
