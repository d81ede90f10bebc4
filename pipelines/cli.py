"""The command `crispline`. Light: heavy commands replace this process by one of the environment that has what they need."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, InvalidUseCase
from components.contracts.relative_moments import is_relative
from pipelines.commands.choices import WrongUsage, default_usecase, given_moment, pairs
from pipelines.commands.images import images_app
from pipelines.commands.packages import packages_app
from pipelines.runners.environments import QUIET, interpreter, step_variables

INTERRUPTED = 130

app = typer.Typer(
    name="crispline",
    help="Pipelines for machine learning on tabular data: from a use case's folder to a monitored, retrained model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
run_app = typer.Typer(no_args_is_help=True, help="Run a pipeline on this machine.", rich_markup_mode="rich")
app.add_typer(run_app, name="run")
app.add_typer(images_app, name="images")
app.add_typer(packages_app, name="packages")

State = Annotated[Path, typer.Option("--state", envvar="CRISPLINE_STATE", help="Folder of the installation: data, models, records, logs.")]
UseCaseName = Annotated[str, typer.Option("--usecase", "-u", help="Name of a folder under usecases/. [dim]default: the only one[/dim]")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Deployment environment.")]
MomentText = str
RelativeMoment = str
DeploymentEnvironment = Annotated[str, typer.Option("--env", "-e", help="A folder under manifests/environments/.", show_default=False)]
DEFAULT_STATE = Path(".crispline/default")


@app.command(epilog="Examples:  crispline validate   |   crispline validate usecases/flights")
def validate(folders: Annotated[list[Path] | None, typer.Argument(help="Folders of use cases. [dim]default: all[/dim]", show_default=False)] = None) -> None:
    """Check use cases against the contract. Exit code 2 when one breaks it, with file, line, key and remedy of every breach."""
    from pipelines.commands.validate import validate_usecases

    raise typer.Exit(validate_usecases(folders or []))


@run_app.command("data", epilog="Example:  crispline run data --start 2012-12-18 --end 2013-04-01")
def run_data(
    start: Annotated[MomentText, typer.Option(help="Start of the period: a day or an RFC 3339 moment.")],
    end: Annotated[MomentText, typer.Option(help="End of the period, not included.")],
    training_start: Annotated[MomentText, typer.Option(help="First prediction moment of the features built. [dim]default: the use case's window[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Ingest a period, validate it, build features, materialise the online store."""
    parameters = {"start": given_moment(start), "end": given_moment(end), "training_start": _given_or_none(training_start), "environment": environment}
    _run("data", usecase, state, parameters)


@run_app.command("training", epilog="Example:  crispline run training --as-of 2013-04-01")
def run_training(
    as_of: Annotated[MomentText, typer.Option(help="Nothing known later is used.")],
    environment: Environment = "dev",
    cause: Annotated[str, typer.Option(help="What the promotion is recorded under; one cause promotes once. [dim]default: training-<as-of>[/dim]")] = "",
    start: Annotated[MomentText, typer.Option(help="First prediction moment of the training frame. [dim]default: the use case's window[/dim]")] = "",
    trials: Annotated[int, typer.Option(min=0, help="Budget of the search; 0 means that of usecase.yaml.")] = 0,
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Train on the data known at a moment, judge by the gates, promote what passes."""
    _run("training", usecase, state, _training(as_of, start, environment, cause or f"training-{given_moment(as_of)}", trials))


@run_app.command("retraining", epilog="Example:  crispline run retraining --as-of 2013-07-01 --cause <id of a retrain decision>")
def run_retraining(
    as_of: Annotated[MomentText, typer.Option(help="Nothing known later is used.")],
    cause: Annotated[str, typer.Option(help="Id of what caused it; the run must hold the claim on it, else it ends as duplicate.")],
    environment: Environment = "dev",
    start: Annotated[MomentText, typer.Option(help="First prediction moment of the training frame. [dim]default: the use case's window[/dim]")] = "",
    trials: Annotated[int, typer.Option(min=0, help="Budget of the search; 0 means that of usecase.yaml.")] = 0,
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Retrain for a cause: claim it, train, compare with the champion, judge, promote what passes."""
    _run("retraining", usecase, state, _training(as_of, start, environment, cause, trials))


@run_app.command("batch-scoring", epilog="Example:  crispline run batch-scoring --start 2013-04-01 --end 2013-04-02 --as-of 2013-04-01")
def run_batch_scoring(
    start: Annotated[MomentText, typer.Option(help="First prediction moment.")],
    end: Annotated[MomentText, typer.Option(help="End of the prediction moments, not included.")],
    as_of: Annotated[MomentText, typer.Option(help="Nothing known later is used. [dim]default: end[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Score every entity of a period with the released model, into the prediction log."""
    parameters = {"start": given_moment(start), "end": given_moment(end), "as_of": given_moment(as_of or end), "environment": environment}
    _run("batch_scoring", usecase, state, parameters)


@run_app.command("monitoring", epilog="Example:  crispline run monitoring --start 2013-04-01 --end 2013-04-15 --as-of 2013-05-15")
def run_monitoring(
    start: Annotated[MomentText, typer.Option(help="Start of the window, by prediction moment.")],
    end: Annotated[MomentText, typer.Option(help="End of the window, not included.")],
    as_of: Annotated[MomentText, typer.Option(help="Labels known by then count. [dim]default: end[/dim]")] = "",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Estimate and measure performance over a window, and emit the record."""
    _run("monitoring", usecase, state, {"window_start": given_moment(start), "window_end": given_moment(end), "as_of": given_moment(as_of or end)})


@app.command(epilog="Example:  crispline submit training --env dev --as-of 2013-04-01")
def submit(
    pipeline: Annotated[str, typer.Argument(help="data, training, retraining, batch-scoring or monitoring.")],
    environment: DeploymentEnvironment,
    as_of: Annotated[RelativeMoment, typer.Option(help="Nothing known later is used. [dim]default: end, where there is one[/dim]")] = "",
    start: Annotated[RelativeMoment, typer.Option(help="Start of the period.")] = "",
    end: Annotated[RelativeMoment, typer.Option(help="End of the period, not included.")] = "",
    cause: Annotated[str, typer.Option(help="What a promotion is recorded under. [dim]default: <pipeline>-<as-of>[/dim]")] = "",
    parameters: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="<parameter>=<value>.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for the run's end, with progress.")] = True,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds to follow; the run itself goes on.")] = 86_400,
    usecase: UseCaseName = "",
) -> None:
    """Run a pipeline on the Kubeflow Pipelines of an environment: upload what changed, start, follow. Exit code 5 when the run failed.

    Moments are days, RFC 3339 moments, or relative: now, now-14d, now-1d/d.
    """
    given = _requested(as_of=as_of, start=start, end=end, cause=cause) | pairs(parameters or [])
    request = {"pipeline": pipeline, "usecase": default_usecase(usecase), "environment": environment, "parameters": given, "follow": follow, "timeout": timeout}
    _become("pipeline", "pipelines.commands.submit", [json.dumps(request)])


@app.command(epilog="Example:  crispline schedule training --env prod --cron '0 3 * * 1'   |   crispline schedule --env prod --list")
def schedule(
    environment: DeploymentEnvironment,
    pipeline: Annotated[str, typer.Argument(help="data, training, batch-scoring or monitoring.", show_default=False)] = "",
    cron: Annotated[str, typer.Option(help="Five fields (minute hour day-of-month month day-of-week), or @daily and the like.")] = "",
    time_zone: Annotated[str, typer.Option(help="In which the cron is read. [dim]default: the installation's[/dim]")] = "",
    as_of: Annotated[RelativeMoment, typer.Option(help="[dim]default: now, at each run[/dim]")] = "",
    start: Annotated[RelativeMoment, typer.Option(help="[dim]default for data: last, the end of the last ingested period[/dim]")] = "",
    end: Annotated[RelativeMoment, typer.Option(help="[dim]default for data: now[/dim]")] = "",
    parameters: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="<parameter>=<value>.")] = None,
    name: Annotated[str, typer.Option(help="Tells several schedules of one pipeline apart.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Show what is scheduled.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the schedule away, once its runs have ended.")] = False,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds to wait for the runs of the schedule that is replaced.")] = 43_200,
    usecase: UseCaseName = "",
) -> None:
    """Run a pipeline at its times on Kubeflow Pipelines: no catch-up, one run at a time. Changes a schedule in place; repeat it after an interruption."""
    if show + remove + bool(cron) != 1 or (not pipeline and not show):
        raise WrongUsage("give a pipeline and --cron, or a pipeline and --remove, or --list")
    request = {
        "action": "list" if show else "remove" if remove else "apply",
        "pipeline": pipeline,
        "usecase": default_usecase(usecase),
        "environment": environment,
        "name": name,
        "cron": cron,
        "time_zone": time_zone,
        "parameters": _requested(as_of=as_of, start=start, end=end) | pairs(parameters or []),
        "timeout": timeout,
    }
    _become("pipeline", "pipelines.commands.schedule", [json.dumps(request)])


@app.command(epilog="Example:  crispline step understanding.profile -i dataset=data.parquet -i manifest=manifest.json")
def step(
    name: Annotated[str, typer.Argument(help="<component>.<step>, such as model_engineering.train; without a step: lists them.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="<artifact>=<path>. [dim]default: what the experiment's steps wrote last[/dim]")
    ] = None,
    parameters: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="<parameter>=<value>.")] = None,
    experiment: Annotated[str, typer.Option(help="Name; every experiment has a state folder of its own.")] = "default",
    usecase: UseCaseName = "",
    state: Annotated[Path | None, typer.Option("--state", help="State folder. [dim]default: .crispline/experiments/<experiment>[/dim]")] = None,
) -> None:
    """Try one step on one use case, in an experiment, on artifacts given by path."""
    folder = state or Path(".crispline/experiments") / experiment
    request = {
        "step": name,
        "inputs": pairs(inputs or []),
        "parameters": {"usecase": default_usecase(usecase), **pairs(parameters or [])},
        "state": str(folder),
    }
    _become("pipeline", "pipelines.commands.step", [json.dumps(request)], folder)


@app.command(epilog="Example:  crispline status --json | jq .champions")
def status(usecase: UseCaseName = "", state: State = DEFAULT_STATE, as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False) -> None:
    """What runs, what is released, what was decided lately."""
    from pipelines.commands.status import show_status

    show_status(state, default_usecase(usecase), as_json)


@app.command(epilog="Example:  crispline scorecard --state .crispline/demo --format markdown > scorecard.md")
def scorecard(
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
    form: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
) -> None:
    """The ML Test Score (Breck et al., 28 tests) from the last test and pipeline runs."""
    from pipelines.commands.scorecard import show_scorecard

    if form not in ("table", "markdown", "json"):
        raise CrisplineError(f"--format is {form!r}; it must be table, markdown or json")
    show_scorecard(default_usecase(usecase), state, form)  # type: ignore[arg-type]


@app.command(epilog="Example:  crispline serve --port 8080")
def serve(
    port: Annotated[int, typer.Option(help="Where predictions are asked for.")] = 8080,
    environment: Environment = "dev",
    moment_skew: Annotated[
        str, typer.Option(help="How far a request's prediction moment may lie from now: a duration, or unlimited. Without it, the release's contract decides.")
    ] = "",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Serve the released model: feature server, model server, sidecar, trigger and the forwarder in front. Ctrl-C ends all of it."""
    request = {"port": port, "environment": environment, "moment_skew": moment_skew, "usecase": default_usecase(usecase), "state": str(state)}
    _become("pipeline", "pipelines.commands.serve", [json.dumps(request)], state)


@app.command(epilog="Example:  crispline backtest --source --start 2013-01-01 --end 2014-01-01 --live-from 2013-04-01")
def backtest(
    start: Annotated[MomentText, typer.Option(help="First prediction moment of the history. [dim]default: all that the lake holds[/dim]")] = "",
    end: Annotated[MomentText, typer.Option(help="End of the history, not included.")] = "",
    live_from: Annotated[MomentText, typer.Option(help="When the first model goes live. [dim]default: a training window after the start[/dim]")] = "",
    source: Annotated[bool, typer.Option("--source", help="Read the use case's source instead of the state's lake; needs --start and --end.")] = False,
    rows: Annotated[int, typer.Option(min=1000, help="Rows that are kept, drawn without regard to time or label.")] = 40_000,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("backtest.html"),
    cache: Annotated[Path | None, typer.Option(help="Where frame and models are kept. [dim]default: <state>/backtest[/dim]")] = None,
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Replay the retraining decision on a use case's history, beside other policies and other settings, and draw it."""
    moments = {"start": start, "end": end, "live_from": live_from}
    request: dict[str, Any] = {name: _given_or_none(moment) for name, moment in moments.items()} | {"source": source, "rows": rows, "out": str(out)}
    request |= {"cache": str(cache) if cache else "", "usecase": default_usecase(usecase), "state": str(state)}
    _become("pipeline", "pipelines.commands.backtest", [json.dumps(request)], state)


@app.command(epilog="Examples:  crispline doctor   |   crispline doctor --env dev")
def doctor(
    env: Annotated[str, typer.Option("--env", help="Also an environment of manifests/environments: its cluster, endpoints, permissions and versions.")] = "",
) -> None:
    """Whether this machine, and an environment, have what crispline needs, and what to do where not. Exit code 1 when something needed is missing."""
    if env:
        _become("pipeline", "pipelines.commands.doctor", [env])
    from pipelines.commands.doctor import diagnose

    raise typer.Exit(diagnose())


@app.command(epilog="Examples:  crispline init --organisation acme --registry ghcr.io/acme   |   crispline init --remove-example")
def init(
    organisation: Annotated[str, typer.Option(help="Owner of the repository at the forge. [dim]default: as it is[/dim]")] = "",
    repository: Annotated[str, typer.Option(help="Address of the Git repository. [dim]default: the forge's, with the organisation[/dim]")] = "",
    registry: Annotated[str, typer.Option(help="Where the images are, such as ghcr.io/acme. [dim]default: as it is[/dim]")] = "",
    ci: Annotated[str, typer.Option(help="Continuous integration: github or none. [dim]default: as it is[/dim]")] = "",
    remove_example: Annotated[
        bool, typer.Option("--remove-example", help="Remove the use case flights and its manifests; another use case must exist.")
    ] = False,
) -> None:
    """Make a fresh clone yours: organisation, repository, registry and CI in the files that name them. Doing it again changes nothing."""
    from pipelines.commands.init import initialise

    raise typer.Exit(initialise(organisation, repository, registry, ci, remove_example))


@app.command(epilog="Example:  crispline ui --state .crispline/demo")
def ui(port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000, state: State = DEFAULT_STATE) -> None:
    """Open MLflow's pages on the runs of a state folder: http://127.0.0.1:5000."""
    from pipelines.commands.ui import mlflow_server

    arguments, variables = mlflow_server(state, port)
    os.environ.update(variables)
    _become("pipeline", "mlflow", arguments, state)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}, add_help_option=False)
def demo(context: typer.Context) -> None:
    """The whole loop on a year of real flights, ending with report.html. See crispline demo --help."""
    _become("pipeline", "pipelines.demo", context.args)


@app.command(
    epilog="Examples:  crispline promote --from staging --to prod   |   crispline promote --release 4f1c... --as-of 2013-07-01 --state .crispline/mine"
)
def promote(
    source: Annotated[str, typer.Option("--from", help="Environment whose release in force is promoted; with --to.")] = "",
    target: Annotated[str, typer.Option("--to", help="Environment that it is promoted to; with --from.")] = "",
    release: Annotated[str, typer.Option(help="Id of a release bundle. [dim]with --from: the one in force there[/dim]")] = "",
    env: Annotated[str, typer.Option("--env", help="Environment of manifests/environments where --release was built.")] = "",
    canary: Annotated[bool, typer.Option("--canary", help="With --from: begin a canary by deployment.canary_steps instead.")] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="With --from: begin the canary with a shadow.")] = False,
    image: Annotated[
        list[str] | None, typer.Option("--image", help="<serving or monitoring>=<sha256:...>. [dim]default: those in service in --from[/dim]")
    ] = None,
    unchecked: Annotated[str, typer.Option(help="With --from: why it may go although nobody checked it for training/serving skew.")] = "",
    as_of: Annotated[MomentText, typer.Option(help="Business time of the decision. [dim]default with --from or --env: now[/dim]")] = "",
    cause: Annotated[str, typer.Option(help="What it is recorded under; one cause promotes once. [dim]default: derived from the release[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Promote a release bundle: from one environment to the next, or within the one where it was built. One Git commit, or a pull request."""
    if source or target:
        if not (source and target) or env:
            raise WrongUsage("a promotion goes --from one environment --to another; --env stands alone")
        given = {
            "source": source,
            "target": target,
            "release": release,
            "canary": canary,
            "shadow": shadow,
            "images": pairs(image or []),
            "cause": cause,
            "unchecked": unchecked,
        }
        _release("promote_between", usecase, state, {**given, "as_of": _given_or_now(as_of)})
    if canary or shadow or image:
        raise WrongUsage("--canary, --shadow and --image belong to a promotion --from one environment --to another")
    if not release:
        raise WrongUsage("name what is promoted: --release <id>, or --from <environment> --to <environment>")
    if env:
        _release("promote_in", usecase, state, {"target": env, "release": release, "cause": cause, "as_of": _given_or_now(as_of)})
    if not as_of:
        raise WrongUsage("--as-of is missing: the business time of the decision, such as 2013-07-01")
    _release(
        "promote", usecase, state, {"release": release, "environment": environment, "cause": cause or f"promote-{release[:12]}", "as_of": given_moment(as_of)}
    )


@app.command(
    epilog="Examples:  crispline rollback --env prod --to previous --reason 'wrong weather feed'   |   crispline rollback --as-of 2013-07-01 --reason why"
)
def rollback(
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    release: Annotated[str, typer.Option("--to", help="`previous`, or the start of the id of any earlier release. [dim]default: previous[/dim]")] = "",
    env: Annotated[str, typer.Option("--env", help="Environment of manifests/environments. [dim]default: --environment of --state[/dim]")] = "",
    propose: Annotated[bool, typer.Option("--propose", help="With --env: a pull request instead of a commit.")] = False,
    as_of: Annotated[MomentText, typer.Option(help="Business time of the decision. [dim]default with --env: now[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Go back to an earlier release of an environment: one Git commit. A canary that is under way there ends with it."""
    if env:
        _release("rollback_in", usecase, state, {"target": env, "release": release, "reason": reason, "propose": propose, "as_of": _given_or_now(as_of)})
    if not as_of:
        raise WrongUsage("--as-of is missing: the business time of the decision, such as 2013-07-01")
    _release("rollback", usecase, state, {"release": release, "environment": environment, "reason": reason, "as_of": given_moment(as_of)})


@app.command(epilog="Example:  crispline replay --env dev --start 2013-04-01 --end 2013-05-01 --share 0.1")
def replay(
    environment: DeploymentEnvironment,
    start: Annotated[MomentText, typer.Option(help="First prediction moment.")],
    end: Annotated[MomentText, typer.Option(help="End of the prediction moments, not included.")],
    share: Annotated[float, typer.Option(help="Share of the entities, the same ones every time.")] = 1.0,
    rows: Annotated[int, typer.Option(min=1, help="Most rows of one request.")] = 200,
    usecase: UseCaseName = "",
) -> None:
    """Ask the served model of an environment about rows of the past, from its own lake: what follows from them it does by itself."""
    given = {"environment": environment, "start": given_moment(start), "end": given_moment(end), "share": share, "rows": rows}
    _become("pipeline", "pipelines.commands.replay", [json.dumps({**given, "usecase": default_usecase(usecase)})])


@app.command(name="check-releases", epilog="Example:  crispline check-releases --base origin/main")
def check_releases(
    base: Annotated[str, typer.Option(help="Commits after this one are checked. [dim]default: only what HEAD releases[/dim]")] = "",
    head: Annotated[str, typer.Option(help="The newest commit.")] = "HEAD",
    env: Annotated[list[str] | None, typer.Option("--env", help="Environments whose stores can be reached from here. [dim]default: all[/dim]")] = None,
    controller: Annotated[str, typer.Option(help="Author address of the canary controller's commits. [dim]default: crispline-canary@localhost[/dim]")] = "",
    record: Annotated[bool, typer.Option("--record", help="Write the record of every promotion that was merged; on the main branch.")] = False,
    repository: Annotated[Path | None, typer.Option(help="Clone with the manifests. [dim]default: this one[/dim]")] = None,
) -> None:
    """Hold releases and canaries against their bundles, records and order. Exit code 1 when one is refused or cannot be checked."""
    request = {"base": base, "head": head, "environments": env or [], "controller": controller, "record": record, "repository": str(repository or "")}
    _become("pipeline", "pipelines.commands.release_check", [json.dumps(request)])


def _given_or_now(moment: str) -> str:
    return given_moment(moment) if moment else format_moment(datetime.now(UTC).replace(microsecond=0))


def _requested(**given: str) -> dict[str, str]:
    """What was given, absolute moments in UTC; relative ones and `last` as they are."""
    return {name: value if name == "cause" or value == "last" or is_relative(value) else given_moment(value) for name, value in given.items() if value}


def _given_or_none(moment: str) -> str:
    return given_moment(moment) if moment else ""


def _training(as_of: str, start: str, environment: str, cause: str, trials: int) -> dict[str, Any]:
    return {"as_of": given_moment(as_of), "training_start": _given_or_none(start), "environment": environment, "cause": cause, "trials": trials}


def _run(pipeline: str, usecase: str, state: Path, parameters: dict[str, Any]) -> NoReturn:
    request = {"pipeline": pipeline, "parameters": {"usecase": default_usecase(usecase), **parameters}, "state": str(state)}
    _become("pipeline", "pipelines.commands.run", [json.dumps(request)], state)


def _release(command: str, usecase: str, state: Path, given: dict[str, Any]) -> NoReturn:
    _become("pipeline", "pipelines.commands.release", [json.dumps({"command": command, "usecase": default_usecase(usecase), **given})], state)


def _become(environment: str, module: str, arguments: list[str], state: Path | None = None) -> NoReturn:
    """Replace this process by the environment's Python on a module; signals, the terminal and the exit code are then its own."""
    python = str(interpreter(environment))
    variables = QUIET if state is None else step_variables(state)
    sys.stdout.flush()
    os.execve(python, [python, "-m", module, *arguments], {**os.environ, **variables})  # noqa: S606


def main() -> None:
    """Entry point. A refusal is printed without a stack trace and gives its own exit code."""
    try:
        app()
    except InvalidUseCase as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except CrisplineError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
