#!/usr/bin/env python3
"""The chain of notebooks, and the operator's commands around it.

`python pipeline.py` is `python pipeline.py run`; `--help` works on every command.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _not_ours(error: ImportError) -> str:
    """Say that another environment is active, or that packages are another processor's."""
    return (
        f"error: {sys.executable} (Python {sys.version.split()[0]}) is not this project's: "
        f"{str(error).splitlines()[0]}; `make setup`, then `make` or .venv/bin/python"
    )


try:
    import click

    from taxi_duration import environment
    from taxi_duration.chain.options import NewPath, Number
    from taxi_duration.domain.months import SERVICES
    from taxi_duration.errors import MonthNotPublishedError, NotFoundError, TaxiError
except ImportError as error:
    sys.exit(_not_ours(error))

if TYPE_CHECKING:
    from taxi_duration.chain.run import Run

# The order is the story: each notebook reads what the ones before it left in the run's folder.
NOTEBOOKS = ("01_read_data", "02_train_validate", "03_multiple_models", "04_save_model")

EXIT_DONE = 0
EXIT_FAILED = 1  # the message names what, where and what to do
EXIT_USAGE = 2  # click's own: no such command, flag or value
EXIT_NOT_PUBLISHED = 3
EXIT_CHANGED = 4  # `trace`: something is not as it was recorded
EXIT_MISSING = 5  # `trace`: nothing changed, something is gone
EXIT_UNKNOWN = 6  # `trace`: neither, but something cannot be checked
EXIT_HANGUP = 129  # SIGHUP, as shells have it: 128 and the signal's number
EXIT_INTERRUPTED = 130  # Ctrl-C
EXIT_TERMINATED = 143  # SIGTERM


class DefaultRun(click.Group):
    """A group whose first command may be left out: it is `run` then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front unless a command or a request for help comes first."""
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultRun, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """NYC taxi trip duration: train, register, score.

    Settings come from a flag, else -p NAME VALUE, else the environment, else the default.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a month is not published yet, 4 a trace found
    something changed, 5 missing, 6 unknown, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
    """


def month_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that choose service and months."""
    for option in (
        click.option("--service", help=f"{', '.join(SERVICES)}."),
        click.option("--val-data", help="Later months to score on."),
        click.option(
            "--train-data", help="Months to fit on: 2021-01, 'Jan 2021', 2021-01:2021-03, a list."
        ),
    ):
        command = option(command)
    return command


class ModelOption(click.Option):
    """Lists the kinds of models in the help only: that imports every training library."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help."""
        from taxi_duration.chain.run_settings import MODEL_CHOICES

        self.help = f"{', '.join(MODEL_CHOICES)}."
        return super().get_help_record(ctx)


@cli.command()
@month_options
@click.option("--model", cls=ModelOption)
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE",
              help="Any notebook parameter; may be given several times.")  # fmt: skip
@click.option("--resume", metavar="RUN_ID", help="Go on at the first notebook that did not finish.")
@click.option("--fresh", is_flag=True, help="Execute and fit everything, also what is current.")
def run(
    resume: str | None, fresh: bool, parameters: tuple[tuple[str, str], ...], **flags: str | None
) -> None:
    """Run the chain 01 to 04: read, train, compare, save and register.

    A notebook whose code, months, settings and versions are as in an earlier run is taken from
    that run, when what it made is still whole.
    """
    from taxi_duration.chain.warm import end_warming, start_warming

    start_warming()  # it imports beside what is imported and looked at here
    try:
        this_run = _asked_run(resume, fresh, dict(parameters), flags)
    except Exception:
        end_warming()
        raise
    from taxi_duration.chain.chain import run_chain

    try:
        run_chain(this_run, NOTEBOOKS, say=click.echo)
    except KeyboardInterrupt:
        done = this_run.read()["notebooks"]
        place = next((name for name in NOTEBOOKS if done.get(name, {}).get("status") != "done"), "")
        where = f" with {place}" if place else ""
        click.echo(
            f"interrupted; `python pipeline.py run --resume {this_run.run_id}` goes on{where}"
        )
        raise


def _asked_run(
    resume: str | None, fresh: bool, given: dict[str, str], flags: dict[str, str | None]
) -> Run:
    """The run to go on with, or a new one, its settings checked."""
    from taxi_duration.chain.run import load_run, new_run
    from taxi_duration.chain.run_settings import resolve_settings
    from taxi_duration.doctor.places import check_places_of_a_run
    from taxi_duration.doctor.settings import check_settings_of_a_run

    if given:
        from taxi_duration.chain.notebooks import check_parameter_names

        check_parameter_names(given, NOTEBOOKS)
    check_settings_of_a_run()
    check_places_of_a_run()
    if not resume:
        settings = resolve_settings({k.upper(): v for k, v in flags.items()}, given)
        return new_run(settings, takes_current=not fresh)
    if given or fresh or any(flags.values()):
        raise click.UsageError("--resume goes on with the settings the run was started with")
    return load_run(resume)


@cli.command()
@month_options
@click.option("--months", "tags", help="These months instead of a run's: 2020-03:2022-06.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def data(tags: str | None, as_json: bool, **flags: str | None) -> None:
    """Fetch, check and prepare months; show their accounting and what their columns say.

    Months that are not published are named and left out with --months; a run needs all of its.
    """
    from taxi_duration.data.month_health import examine_months
    from taxi_duration.data.prepared import prepare_months
    from taxi_duration.data.sources import SAMPLE_BANNER

    months = prepare_months(*_asked_months(tags, flags))
    found = examine_months(months)
    if as_json:
        pairs = zip(months, found, strict=True)
        click.echo(json.dumps([{**m.lineage(), "health": h.as_dict()} for m, h in pairs], indent=2))
        return
    reasons = list(months[0].accounting.reasons)
    _print_table(
        f"Prepared months of {months[0].raw.service}",
        ["month", "from", "rows", "kept", *reasons, "health", "SHA-256"],
        [
            [
                month.raw.month, month.raw.data_source, f"{month.accounting.rows_read:,}",
                f"{month.accounting.rows_kept:,}",
                *(f"{month.accounting.reasons[reason]:,}" for reason in reasons),
                health.level, month.raw.sha256[:8],
            ]
            for month, health in zip(months, found, strict=True)
        ],
    )  # fmt: skip
    _print_findings(found)
    if any(month.raw.data_source == "sample" for month in months):
        click.echo(SAMPLE_BANNER)


def _asked_months(tags: str | None, flags: dict[str, str | None]) -> tuple[str, list[Any]]:
    """The service and the months that `data` is asked for."""
    if tags is None:
        from taxi_duration.chain.run_settings import resolve_settings

        settings = resolve_settings({k.upper(): v for k, v in flags.items()}, {})
        return settings.service, settings.train_months + settings.val_months
    from taxi_duration.data.sources import existing_months
    from taxi_duration.domain.months import check_available, check_service, parse_months

    if flags["train_data"] or flags["val_data"]:
        raise click.UsageError("--months stands in the place of --train-data and --val-data")
    service = check_service(flags["service"] or environment.setting("SERVICE") or "green")
    wanted = parse_months(tags)
    check_available(service, wanted)
    months = existing_months(service, wanted, lambda line: click.echo(line, err=True))
    if not months:
        raise MonthNotPublishedError(f"no month of {service} {tags} is published")
    return service, months


def _print_findings(found: list[Any]) -> None:
    rows = [
        [
            health.month, finding.level, finding.code, finding.column, finding.vendor,
            f"{finding.rows:,}", f"{finding.share:.2%}", finding.text,
        ]
        for health in found
        for finding in health.findings
    ]  # fmt: skip
    if rows:
        columns = ["month", "level", "finding", "column", "vendor", "rows", "share", "words"]
        _print_table("What their columns say", columns, rows)
    else:
        click.echo("their columns say nothing unusual")


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535),
              help="Port on this machine; 5000, or the next one that is free.")  # fmt: skip
@click.option("--uri", is_flag=True, help="Print the store's MLFLOW_TRACKING_URI and nothing else.")
def mlflow(port: int | None, uri: bool) -> None:
    """Serve MLflow's pages: runs, metrics, registry. Ctrl-C ends them.

    Those of a server that MLFLOW_TRACKING_URI names are only pointed at.
    """
    from taxi_duration.registry.tracking import connect, pages_of_runs, serve_pages, store_uri

    store = store_uri()
    if uri:
        connect()  # makes the store, or follows a moved one
        click.echo(store)
        return
    if store.startswith(("http://", "https://")):
        click.echo(f"MLflow on {pages_of_runs(store)}")
        return
    from taxi_duration.doctor.doctor import MLFLOW_PORT
    from taxi_duration.doctor.ports import free_port

    port = free_port(port, MLFLOW_PORT)
    click.echo(f"MLflow on {pages_of_runs(f'http://127.0.0.1:{port}')} (Ctrl-C ends it)")
    sys.exit(serve_pages(port))


@cli.command()
@click.argument("name", required=False)
@click.option("--history", is_flag=True, help="Every change of an alias instead, oldest first.")
def models(name: str | None, history: bool) -> None:
    """List registered models: versions, aliases, who serves, months, error, digest."""
    if history:
        _print_alias_history(name)
        return
    from taxi_duration.live.deployment import who_serves
    from taxi_duration.registry import tracking
    from taxi_duration.registry.versions import list_versions

    rows, serving = list_versions(tracking.connect(), name), who_serves()
    if not rows and name:
        raise NotFoundError(f"there is no model {name}; `python pipeline.py models` lists all")
    if not rows:
        click.echo("no models are registered yet; `make run` trains and registers the first")
        return
    _print_table(
        f"Registered models; bundles in {environment.models_dir().name}/",
        ["model", "aliases", "serves", "kind", "train", "validated", "RMSE", "data", "digest",
         "bundle"],
        [
            [
                row.ref, ", ".join(row.aliases), serving.get(row.ref), row.model_kind, row.train,
                row.validation, _number(row.rmse), row.data_source,
                f"sha256:{row.sha256[:12]}", row.bundle,
            ]
            for row in rows
        ],
    )  # fmt: skip
    if any(row.bundle != "here" for row in rows):
        click.echo("`python pipeline.py pull NAME:VERSION` fetches a bundle that is not here")


@cli.command()
@click.argument("reference", metavar="REFERENCE")
@click.argument("alias")
def tag(reference: str, alias: str) -> None:
    """Let NAME:ALIAS mean a version, as `docker tag` does.

    REFERENCE is NAME:VERSION, NAME:ALIAS or NAME@sha256:…
    """
    from taxi_duration.registry import tracking
    from taxi_duration.registry.aliases import tag_version

    change = tag_version(tracking.connect(), reference, alias)
    was = "" if change.before in (None, change.version) else f", was {change.name}:{change.before}"
    click.echo(f"{change.name}:{change.alias} is {change.name}:{change.version}{was}")


@cli.command()
@click.argument("reference", metavar="NAME:ALIAS")
def untag(reference: str) -> None:
    """Take an alias away; the version that it meant stays."""
    from taxi_duration.registry import tracking
    from taxi_duration.registry.aliases import untag_version

    change = untag_version(tracking.connect(), reference)
    click.echo(f"{change.name}:{change.alias} is gone; {change.name}:{change.before} stays")


@cli.command()
@click.argument("reference", metavar="REFERENCE")
@click.option("--to", type=NewPath(is_folder=True),
              help="Folder for model.bin and card.json; models/NAME/VERSION/.")  # fmt: skip
def pull(reference: str, to: Path | None) -> None:
    """Fetch a version's bundle from the registry, digest checked, as `docker pull` does.

    REFERENCE is NAME:VERSION, NAME:ALIAS or NAME@sha256:…
    """
    from taxi_duration.domain.version import Version
    from taxi_duration.registry import tracking
    from taxi_duration.registry.pull_bundle import pull_bundle

    card, folder, is_new = pull_bundle(tracking.connect(), reference, to)
    version = Version.of(card)
    what = f"{version.ref} (sha256:{version.sha256[:12]})"
    click.echo(f"{what} {'was pulled into' if is_new else 'is up to date in'} {folder}")


@cli.command("model-card")
@click.argument("reference", metavar="REFERENCE")
@click.option("--out", type=NewPath(), help="File; printed when left out.")
def model_card(reference: str, out: Path | None) -> None:
    """Write a version's model card as Hugging Face reads it, made from its card.json.

    REFERENCE is NAME:VERSION, NAME:ALIAS or NAME@sha256:…
    """
    from taxi_duration.files import write_bytes
    from taxi_duration.model.bundle import load_card
    from taxi_duration.registry import tracking
    from taxi_duration.registry.model_card import as_model_card
    from taxi_duration.registry.versions import find_bundle

    text = as_model_card(load_card(find_bundle(tracking.connect(), reference)))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_bytes(out, text.encode())


@cli.command()
@click.argument("reference", metavar="NAME:VERSION")
@click.option("--reason", default="promoted by hand", show_default=True, help="For the history.")
def promote(reference: str, reason: str) -> None:
    """Let a registered version serve; running services change over within 2 seconds."""
    from taxi_duration.chain.release import promote_version
    from taxi_duration.registry import tracking

    champion, tested = promote_version(tracking.connect(), reference, reason)
    ended = f"; the test of {tested.ref} has ended" if tested else ""
    click.echo(f"champion is {champion.ref} (sha256:{champion.sha256[:12]}){ended}")


@cli.command()
@click.option("--reason", default="rolled back by hand", show_default=True, help="For the history.")
def rollback(reason: str) -> None:
    """Let the champion before the present one serve again."""
    from taxi_duration.chain.release import roll_back_version

    champion = roll_back_version(reason)
    click.echo(f"champion is {champion.ref} again")


@cli.command()
@click.option("--service", default="green", show_default=True, help=f"{', '.join(SERVICES)}.")
@click.option("--months", required=True, help="Months to search on; none that you judge by later.")
@click.option(
    "--trials",
    default=40,
    type=click.IntRange(1),
    show_default=True,
    help="At most so many settings.",
)
@click.option("--minutes", default=30.0, type=Number(0, min_open=True),
              show_default=True, help="At most so long.")  # fmt: skip
@click.option("--out", type=NewPath(), required=True,
              help="File to write, in the form of training/xgb_settings.json.")  # fmt: skip
def tune(service: str, months: str, trials: int, minutes: float, out: Path) -> None:
    """Search XGB's settings on time-ordered folds inside months; the study goes to MLflow."""
    from taxi_duration.domain.months import check_service, parse_months
    from taxi_duration.training import tuning

    found = tuning.tune(check_service(service), parse_months(months), trials, minutes, out)
    click.echo(
        f"{found['trials']} trials: {found['score']:.4f} of the mean's RMSE, "
        f"{found['stored_score']:.4f} with the stored settings; written to {out}"
    )


@cli.command()
@click.option("--months", "tags", multiple=True, required=True, metavar="SERVICE=MONTHS",
              help="Such as green=2020-03:2020-12; may be given several times.")  # fmt: skip
@click.option("--out", type=NewPath(is_folder=True), required=True,
              help="Folder of its two files; the package's own is model/.")  # fmt: skip
def atlas(tags: tuple[str, ...], out: Path) -> None:
    """Make an atlas: what earlier years say of every route and hour; `ATLAS=FOLDER` uses it."""
    from taxi_duration.domain.months import check_service, parse_months
    from taxi_duration.training.atlas_file import make_atlas

    months: dict[str, Any] = {}
    for given in tags:
        service, mark, some = given.partition("=")
        if not (service and mark and some):
            raise click.UsageError(
                f"--months is {given!r}; it must be SERVICE=MONTHS, such as green=2020-03:2020-12"
            )
        known = months.setdefault(check_service(service), [])
        months[check_service(service)] = sorted({*known, *parse_months(some)})
    made = make_atlas(months, out)
    click.echo(
        f"atlas of {made['trips']:,} trips in {len(made['months'])} months, for windows that begin "
        f"on {made['known_from']} or later; written to {out.name}/, used with ATLAS={out.resolve()}"
    )


@cli.command()
@click.option("--data", required=True, help="Month, range or list to score, as --train-data.")
@click.option("--model", "reference", help="NAME:VERSION, NAME:ALIAS or NAME@sha256:…; champion.")
@click.option("--service", default="green", show_default=True, help=f"{', '.join(SERVICES)}.")
@click.option("--out", type=NewPath(), help="Parquet file to write.")
@click.option("--to", metavar="ADDRESS", help="Where to send it instead: s3://bucket/key.")
def score(data: str, reference: str | None, service: str, out: Path | None, to: str | None) -> None:
    """Score months in a batch, to Parquet, and say how right the answers were."""
    from taxi_duration.chain.scoring import score_months

    started = time.perf_counter()
    result = score_months(data, service, reference, out, to)
    seconds = time.perf_counter() - started
    click.echo(
        f"{result.model}: {result.rows:,} trips of {service} {data} scored in {seconds:.1f} s, "
        f"RMSE {result.metrics['rmse']:.4f}, MAE {result.metrics['mae']:.4f} minutes, "
        f"P10-P90 covers {result.metrics['coverage']:.1%}"
    )
    if clean := result.without_suspects:
        click.echo(
            f"without rides of a proven fault ({result.rows - clean['rows']:,}): "
            f"RMSE {clean['rmse']:.4f}, MAE {clean['mae']:.4f} minutes"
        )
    click.echo(f"written to {result.path}")


@cli.command()
@click.option(
    "--data", default="", help="Published months to look at too: 2021-03, a range, a list."
)
def monitor(data: str) -> None:
    """Look at the live log: errors, coverage, drift; one page and one verdict."""
    from taxi_duration.loop.monitor_report import run_monitor

    run_monitor(data, say=click.echo)


@cli.command()
@click.option("--reason", default="dropped by hand", show_default=True, help="For the history.")
def drop(reason: str) -> None:
    """End the test: the challenger leaves, the champion answers every rider."""
    from taxi_duration.chain.release import mirror_or_warn
    from taxi_duration.loop.by_hand import end_test

    dropped = end_test(reason)
    if dropped is None:
        click.echo("nothing is under test")
        return
    click.echo(f"{dropped.ref} is dropped, the champion answers every rider")
    mirror_or_warn()


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(as_json: bool) -> None:
    """Who serves, what is under test, what the loop does, and what it would do next and why."""
    from taxi_duration.loop.status import read_status
    from taxi_duration.loop.status_text import status_text

    found = read_status()
    click.echo(json.dumps(found, indent=2, allow_nan=False) if as_json else status_text(found))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--docker", is_flag=True, help="Look at Docker too.")
def doctor(as_json: bool, docker: bool) -> int:
    """What is wrong with machine, settings, stores and deployment; a line and a remedy each.

    Exit code 1 when there is a problem; notes do not count. Changes nothing, takes three seconds.
    """
    from taxi_duration.doctor.doctor import consult
    from taxi_duration.doctor.examination import PROBLEM

    found = consult(docker)
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in found], indent=2))
    else:
        click.echo("\n".join(finding.line for finding in found))
    has_problem = any(finding.level == PROBLEM for finding in found)
    return EXIT_FAILED if has_problem else EXIT_DONE


@cli.group(invoke_without_command=True)
@click.option("--dry-run", is_flag=True, help="Say what the turn would do, and change nothing.")
@click.pass_context
def auto(context: click.Context, dry_run: bool) -> None:
    """One turn of the loop: new month or alarm, train, gate, shadow, A/B-test, promote or drop."""
    if context.invoked_subcommand:
        if dry_run:
            raise click.UsageError("--dry-run goes with a turn, not with pause or resume")
        return
    from taxi_duration.doctor.places import check_places_of_a_run
    from taxi_duration.doctor.settings import check_settings_of_a_turn

    check_settings_of_a_turn()
    if dry_run:
        from taxi_duration.loop.dry_run import say_dry_run

        say_dry_run(click.echo)
        return
    check_places_of_a_run()
    from taxi_duration.loop.archiving import archive_after_turn
    from taxi_duration.loop.notify import notifying
    from taxi_duration.loop.pipeline_world import PipelineWorld
    from taxi_duration.loop.turn import take_turn

    with notifying(click.echo) as on_step:
        take_turn(PipelineWorld(NOTEBOOKS, say=click.echo), say=click.echo, on_step=on_step)
    archive_after_turn(click.echo)


@cli.command()
@click.option("--test", is_flag=True, help="Send each of them a message now.")
def notify(test: bool) -> None:
    """List whom NOTIFY_URLS names, and how many messages wait for each.

    Exit code 1 when an address is not understood, or does not take the test message.
    """
    from taxi_duration.loop.notify import send_test, waiting_messages
    from taxi_duration.loop.targets import read_targets

    targets, problems = read_targets()
    if not targets and not problems:
        click.echo("NOTIFY_URLS names nobody; docs/loop.md says what to write there")
    waiting = [key for message in waiting_messages() for key in message.waits]
    for target in targets:
        click.echo(f"{target.name}: {waiting.count(target.key)} messages wait")
    for target, problem in send_test() if test else ():
        click.echo(f"{target.name}: {problem or 'took the test message'}")
        problems += [f"{target.name}: {problem}"] if problem else []
    if problems:
        raise TaxiError("; ".join(problems))


@auto.command()
@click.option("--reason", default="paused by hand", show_default=True, help="Shown in `status`.")
def pause(reason: str) -> None:
    """Keep the loop from acting until it is resumed; riders are answered as before."""
    from taxi_duration.loop import pausing

    paused, is_new = pausing.pause(reason)
    click.echo(f"the loop {'is' if is_new else 'was already'} {paused.text}")


@auto.command()
def resume() -> None:
    """Let a paused loop act again, from its next turn on."""
    from taxi_duration.loop import pausing

    click.echo("the loop acts again" if pausing.resume() else "the loop was not paused")


@cli.command()
@click.argument("reference", required=False, metavar="[NAME:VERSION]")
def approve(reference: str | None) -> None:
    """Approve what waits under `AUTO_APPROVE=manual`; the loop's next turn does it."""
    from taxi_duration.loop.approving import approve as give_word

    asked = give_word(reference)
    click.echo(f"approved by {asked.who}: {asked.what}; the next turn of `auto` does it")


@cli.group(context_settings={"help_option_names": ["-h", "--help"]})
def feedback() -> None:
    """Feedback from riders: take bad feedback out."""


@feedback.command()
@click.option("--from", "since", required=True, metavar="TIME", help="First moment of receipt.")
@click.option("--to", "until", required=True, metavar="TIME",
              help="First moment after it; ahead only where feedback is dated so.")  # fmt: skip
@click.option("--reason", default="voided by hand", show_default=True, help="For the audit trail.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
def void(since: str, until: str, reason: str, dry_run: bool) -> None:
    """Take the feedback that was received in a time out of every judgement; it is kept.

    The right durations may then be given for the same predictions. TIME is ISO, New York local
    unless it has an offset, and says when feedback came, not when people rode.
    """
    from taxi_duration.live.prediction_log import open_log
    from taxi_duration.live.voiding import void_feedback

    log = open_log()
    try:
        click.echo(void_feedback(log, since, until, reason, dry_run))
    finally:
        log.close()


@cli.group(context_settings={"help_option_names": ["-h", "--help"]})
def log() -> None:
    """The prediction log: keep it within its bounds."""


@log.command("archive")
def archive() -> None:
    """Move rides older than LOG_KEEP_DAYS, or beyond LOG_MAX_MB, into compressed months.

    `trace` and `monitor` still read them. `auto` does the same after each turn.
    """
    from taxi_duration.loop.archiving import archive_log

    archive_log(click.echo)


@cli.command()
@click.option("--data", required=True, help="Month, range or list to play, as --train-data.")
@click.option("--service", default="green", show_default=True, help=f"{', '.join(SERVICES)}.")
@click.option("--url", default="http://127.0.0.1:9696", show_default=True, help="Of the service.")
@click.option(
    "--days", type=click.IntRange(1, environment.MOST_DAYS), help="Only so many, from the first on."
)
@click.option("--rides", type=click.IntRange(1), help="At most so many, evenly spread.")
@click.option("--only-scored", is_flag=True, help="Leave out rides outside 1 to 60 minutes.")
def replay(
    data: str, service: str, url: str, days: int | None, rides: int | None, only_scored: bool
) -> None:
    """Let the rides of a month ask the running service, and give it their true durations."""
    from taxi_duration.loop.replay import replay_months

    answers = replay_months(data, url, service, days, rides, only_scored, say=click.echo)
    _print_table(
        f"Rides of {service} {data}",
        [
            "model",
            "arm",
            "rides",
            "scored",
            "outside 1-60 min",
            "quarantined",
            "MAE min",
            "P10-P90 holds",
        ],
        [
            [
                row.model,
                row.arm,
                f"{row.rides:,}",
                f"{row.scored:,}",
                f"{row.outside:.1%}",
                f"{row.quarantined:,}",
                f"{row.mae:.3f}",
                f"{row.coverage:.1%}",
            ]
            for row in answers.itertuples()
        ],
    )


@cli.command()
@click.option("--months", required=True, help="Months to live through, as --train-data.")
@click.option("--service", default="green", show_default=True, help=f"{', '.join(SERVICES)}.")
@click.option(
    "--delay-months",
    default=0,
    show_default=True,
    type=click.IntRange(0, 12),
    help="From a month's end to its publication; TLC takes about two.",
)
@click.option("--share", default=1.0, type=Number(0, 1, min_open=True),
              show_default=True, help="Of each month's trips.")  # fmt: skip
@click.option("--table", type=NewPath(".md", ".csv"), help="File to write: .md or .csv.")
@click.option("--plot", type=NewPath(".png"), help="PNG file to write.")
def backtest(
    months: str,
    service: str,
    delay_months: int,
    share: float,
    table: Path | None,
    plot: Path | None,
) -> None:
    """Time travel: live through months with the model frozen, retrained monthly, or by auto.

    A fourth line is auto with the live traffic. A killed backtest goes on at the month it was in
    when the same command is given again.
    """
    from taxi_duration.domain.months import check_service, parse_months
    from taxi_duration.loop.backtest import run_backtest, summarize, write_table
    from taxi_duration.plots.backtest import save_plot

    result = run_backtest(
        check_service(service), parse_months(months), click.echo,
        delay_months=delay_months, share=share,
    )  # fmt: skip
    for decision in result.decisions.itertuples():
        click.echo(f"{decision.day:%Y-%m-%d} {decision.what}: {decision.why}")
    for alarm in result.alarms[result.alarms["level"] == "alarm"].itertuples():
        click.echo(f"{alarm.day:%Y-%m-%d} ALARM: {alarm.why}")
    shown = result.table.round(3)
    rows = [[month, *row] for month, row in zip(shown.index, shown.to_numpy(), strict=True)]
    _print_table(f"Backtest of {service}, minutes", ["month", *shown.columns], rows)
    click.echo(", ".join(f"{name} {value:.3f}" for name, value in summarize(result).items()))
    if table:
        write_table(result, table)
    if plot:
        save_plot(result, plot, f"{service} {months}, published after {delay_months} months")


@cli.command()
@click.argument("prediction_id")
def trace(prediction_id: str) -> int:
    """Follow an answer back to the bytes it was learned from, and check every digest on the way.

    PREDICTION_ID may also be the id of a W3C trace, or a traceparent, that a request came with: of
    several answers in a trace the first is followed, and the others are named.

    Exit code 4 when something is not as it was recorded, else 5 when something is missing, else
    6 when something cannot be checked.
    """
    from taxi_duration.live.prediction_log import open_log
    from taxi_duration.loop import evidence
    from taxi_duration.loop.trace import find_asked, trace_prediction

    log = open_log()
    prediction_id, *others = find_asked(prediction_id, log)
    found = trace_prediction(prediction_id, log)
    rows = [list(link) for link in found.links]
    _print_table(f"Trace of {prediction_id}", ["what", "name", "status", "detail"], rows)
    if others:
        click.echo(f"{len(others)} more in the same trace: {', '.join(others[:20])}")
    codes = {
        evidence.CHANGED: EXIT_CHANGED, evidence.MISSING: EXIT_MISSING,
        evidence.UNKNOWN: EXIT_UNKNOWN,
    }  # fmt: skip
    for status in codes:
        if names := found.of_status(status):
            click.echo(f"{status}: {', '.join(names)}", err=True)
    if found.status in codes:
        return codes[found.status]
    click.echo("every digest is that of the bytes that lie here now, and MLflow, history and audit "
               "trail say the same")  # fmt: skip
    return EXIT_DONE


def _print_alias_history(name: str | None) -> None:
    from taxi_duration.registry.aliases import read_alias_history

    changes = [line for line in read_alias_history() if name in (None, line["name"])]
    if not changes:
        click.echo("no alias was changed yet; `python pipeline.py tag NAME:VERSION ALIAS` does it")
        return
    _print_table(
        "Changes of aliases",
        ["at (UTC)", "who", "alias", "from", "to"],
        [
            [line["at"][:19], line["who"], f"{line['name']}:{line['alias']}", line["before"],
             line["version"]]
            for line in changes
        ],
    )  # fmt: skip


@cli.command("new-keys")
def new_keys() -> None:
    """Make a pair of keys: who trains signs with one, who serves checks with the other."""
    from taxi_duration.model.signatures import new_pair

    private, public = new_pair()
    click.echo(f"# where models are made: signs\nMODEL_SIGNING_KEY={private}")
    click.echo(f"# where they are served: checks, and cannot sign\nMODEL_SIGNING_KEY={public}")


def _print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if value in (None, "") else str(value) for value in row))
    # Wide enough for digests when the output goes to a file.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _of_the_system(error: OSError) -> str:
    """Say what the system refused, of which path, and what to do."""
    from taxi_duration.files import DISK_FULL

    if error.errno in DISK_FULL:
        return (
            f"the disk is full ({error}); nothing half-written stays. Free some room and give the "
            "same command again: what was finished is not done again"
        )
    if error.filename is None:
        raise error  # a mistake of ours
    return (
        f"{error.filename}: {error.strerror}; `python pipeline.py doctor` looks at all folders and "
        "settings"
    )


def _is_text(argument: str) -> bool:
    """False for bytes of another encoding: neither log nor registry could keep them."""
    return not any("\ud800" <= sign <= "\udfff" for sign in argument)


def _empty_argument(arguments: list[str]) -> str | None:
    """What an empty argument stands behind: of a variable that was empty, as in --resume "$RUN"."""
    for before, argument in itertools.pairwise(arguments):
        if not argument.strip():
            return before
        if argument.startswith("--") and argument.endswith("="):
            return argument[:-1]
    return None


def _is_somewhere() -> bool:
    """False where the working directory was deleted: neither libraries nor kernels work there."""
    try:
        return Path.cwd().exists()
    except FileNotFoundError:
        return False


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends a command as Ctrl-C does, with what it started and half-written."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def _stop_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP end a command orderly; what `nohup` ignores stays ignored."""

    codes = {signal.SIGTERM: EXIT_TERMINATED, signal.SIGHUP: EXIT_HANGUP}

    def stop(number: int, _frame: Any) -> None:
        raise Stopped(codes[signal.Signals(number)])

    for name in codes:
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, stop)


def _end_children() -> None:
    """End what this process started: a kernel that still starts would tell of its end at length.

    A second Ctrl-C of the impatient would cut that short, and leave what was started.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            # Python's own keeper of semaphores ends by itself, when it has removed them.
            if not any("resource_tracker" in word for word in process.cmdline()):
                process.kill()


def _draw_to_files() -> None:
    """Forget the user's MPLBACKEND: a notebook hands its own to what it starts.

    It may name what is not installed here, and matplotlib then cannot even be imported.
    """
    os.environ.pop("MPLBACKEND", None)


def _code_of_abort(cause: BaseException | None) -> int:
    """Exit code of what click takes for Ctrl-C or Ctrl-D; a pipe that ended is said."""
    if isinstance(cause, EOFError):
        click.echo("error: a process that this command started has died; what it said stands "
                   "above, or it was killed (out of memory?)", err=True)  # fmt: skip
        return EXIT_FAILED
    return getattr(cause, "exit_code", EXIT_INTERRUPTED)


def main() -> int:
    """Run a command; errors a user can mend end in one message, not in a stack trace."""
    environment.spare_loopback_proxies()
    _draw_to_files()
    if odd := next((argument for argument in sys.argv if not _is_text(argument)), None):
        click.echo(f"error: {odd!r} is no text in UTF-8", err=True)
        return EXIT_USAGE
    if before := _empty_argument(sys.argv):
        click.echo(f"error: an empty value after {before}; give one or leave both out", err=True)
        return EXIT_USAGE
    if not _is_somewhere():
        click.echo("error: the folder that this shell is in was deleted; `cd` to another", err=True)
        return EXIT_FAILED
    try:
        return cli.main(standalone_mode=False) or EXIT_DONE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return EXIT_FAILED
    except click.Abort as stop:
        return _code_of_abort(stop.__cause__)
    except MonthNotPublishedError as error:
        click.echo(f"not published yet: {error}", err=True)
        return EXIT_NOT_PUBLISHED
    except TaxiError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    except OSError as error:
        click.echo(f"error: {_of_the_system(error)}", err=True)
        return EXIT_FAILED
    except ImportError as error:
        if str(error.name).partition(".")[0] in ("taxi_duration", "serve"):
            raise  # a mistake of ours
        click.echo(_not_ours(error), err=True)
        return EXIT_FAILED


if __name__ == "__main__":
    environment.restart_in_utf8()
    _stop_as_by_ctrl_c()
    code = main()
    if code in (EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_TERMINATED):
        _end_children()
    gc.freeze()  # to look once more for garbage, at the end, takes a fifth of a second
    sys.exit(code)
