"""The command `crispline`. Light: heavy commands replace this process by one of the environment that has what they need."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from components.contracts.errors import CrisplineError, InvalidUseCase
from pipelines.commands.choices import default_usecase, given_moment, pairs
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

State = Annotated[Path, typer.Option("--state", envvar="CRISPLINE_STATE", help="Folder of the installation: data, models, records, logs.")]
UseCaseName = Annotated[str, typer.Option("--usecase", "-u", help="Name of a folder under usecases/. [dim]default: the only one[/dim]")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Deployment environment.")]
MomentText = str
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


@app.command(epilog="Example:  crispline doctor")
def doctor() -> None:
    """Whether this machine has what crispline needs, and what to do where it has not. Exit code 1 when something needed is missing."""
    from pipelines.commands.doctor import diagnose

    raise typer.Exit(diagnose())


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


@app.command(epilog="Example:  crispline promote --release 4f1c... --environment staging --as-of 2013-07-01")
def promote(
    release: Annotated[str, typer.Option(help="Id of a release bundle.")],
    as_of: Annotated[MomentText, typer.Option(help="Business time of the decision.")],
    cause: Annotated[str, typer.Option(help="What it is recorded under. [dim]default: promote-<release>[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Promote a release bundle to an environment: one Git commit."""
    _release(
        "promote", usecase, state, {"release": release, "environment": environment, "cause": cause or f"promote-{release[:12]}", "as_of": given_moment(as_of)}
    )


@app.command(epilog="Example:  crispline rollback --as-of 2013-07-01 --reason 'wrong weather feed'")
def rollback(
    as_of: Annotated[MomentText, typer.Option(help="Business time of the decision.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    release: Annotated[str, typer.Option("--to", help="Any earlier release. [dim]default: the one before[/dim]")] = "",
    environment: Environment = "dev",
    usecase: UseCaseName = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Go back to an earlier release of an environment: one Git commit."""
    _release("rollback", usecase, state, {"release": release, "environment": environment, "reason": reason, "as_of": given_moment(as_of)})


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
