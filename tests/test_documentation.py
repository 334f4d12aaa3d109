"""README and docs say all that there is, and nothing that there is not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from commands import run_pipeline
from documented import all_commands
from exported import RIDE, a_service, metrics_text
from pages import INLINE, PROJECT, Page, all_rows, named, pages
from settings_read import run_settings, settings_read

import pipeline
from serve import create_app
from serve.bodies import schema
from taxi_duration.chain.notebooks import notebook_parameters
from taxi_duration.domain.asked_rides import Ride


def commands_of(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, such as `auto pause`; a group only where it runs alone."""
    for name, command in group.commands.items():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{before}{name} ")


COMMANDS = dict(commands_of(pipeline.cli))
by_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.name)


def in_text(pattern: str, *files: str) -> set[str]:
    """What a pattern finds in files of the project."""
    return {n for file in files for n in re.findall(pattern, (PROJECT / file).read_text())}


# --- settings -------------------------------------------------------------------------------


def settings_there_are() -> set[str]:
    """All names that the user may set for code, compose, the timer and make."""
    names = settings_read() | run_settings()
    names |= in_text(r"\$\{([A-Z_]+)[:}]", "compose.yaml", "ops/auto.sh")
    return names


def test_every_setting_is_documented():
    missing = settings_there_are() - named("setting")
    assert not missing, "no row in a table `| setting | …`, in README.md or docs/reference.md"


def test_every_documented_setting_is_read():
    assert not named("setting") - settings_there_are()


def test_compose_hands_over_what_the_reference_says():
    text = (PROJECT / "docs" / "reference.md").read_text()
    section = text.partition("### Compose\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([A-Z_]+)`", section))
    assert told == in_text(r"\$\{([A-Z_]+)[:}]", "compose.yaml")


def test_documented_numbers_of_the_service_are_its_defaults():
    from serve import settings

    rows = {INLINE.findall(row[0])[0]: row[2] for row in all_rows("setting")}
    for name in ("HOST", "PORT", "WORKERS", "THREADS", "MAX_BODY_MB", "MAX_RIDES", "MAX_EXPLAINED",
                 "MAX_FEEDBACK"):  # fmt: skip
        assert rows[name].startswith(f"`{getattr(settings, name)}`"), name


@by_page
def test_settings_in_examples_exist(page):
    """`NAME=value` in front of a command."""
    code = [*page.code(), *(line for block in page.blocks("sh") for line in block.splitlines())]
    given = {n for text in code for n in re.findall(r"(?:^|[ $])([A-Z][A-Z_]+)=", text)}
    assert given <= settings_there_are() | {"PYTHON"}


# --- commands and exit codes ----------------------------------------------------------------


def options_of(command: click.Command) -> set[str]:
    """Its options as they are written; of several spellings the longest."""
    found = (p for p in command.params if isinstance(p, click.Option))
    return {max(option.opts, key=len) for option in found}


def command_in(words: list[str]) -> str:
    """The command that these words begin with, also one of a group."""
    return " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]


def reference_rows() -> dict[str, list[str]]:
    """Rows of the reference's commands, by command."""
    rows = Page(PROJECT / "docs" / "reference.md").rows("command")
    return {command_in(INLINE.findall(row[0])[0].split()): row for row in rows}


def test_every_command_stands_in_the_reference_and_no_other():
    assert reference_rows().keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_stands_in_the_reference_and_no_other(name):
    row = reference_rows()[name]
    told = {code.split()[0] for code in INLINE.findall(row[1]) if code.startswith("-")}
    assert told == options_of(COMMANDS[name])
    arguments = [p for p in COMMANDS[name].params if isinstance(p, click.Argument)]
    shown = [argument.make_metavar(click.Context(COMMANDS[name])) for argument in arguments]
    assert INLINE.findall(row[0])[0].split()[len(name.split()) :] == shown


def told_commands(page: Page) -> Iterator[list[str]]:
    """Words of every `python pipeline.py …` or `… …` that a page mentions."""
    lines = [line for block in page.blocks("sh") for line in block.splitlines()]
    for text in (*page.code(), *lines):
        found = re.search(r"(?:python pipeline\.py(?= |$)|^…)([^#&)]*)", text)
        if found and "COMMAND" not in text:
            yield shlex.split(re.sub(r"[\[\]]", "", found[1])) or ["run"]


@by_page
def test_commands_that_are_mentioned_exist_with_their_options(page):
    for words in told_commands(page):
        if words[0].startswith("-") and words[0] not in ("--help", "-h"):
            words = ["run", *words]
        if words[0] in ("…", "--help"):
            continue
        command = command_in(words)
        assert command in COMMANDS, words
        options = {word for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert options <= options_of(COMMANDS[command]) | {"--help"}, words


def test_exit_codes_are_those_of_the_pipeline():
    codes = {value for name, value in vars(pipeline).items() if name.startswith("EXIT_")}
    assert {int(row[0]) for row in all_rows("exit code")} == codes
    for text in (pipeline.cli.help, (PROJECT / "README.md").read_text()):
        said = re.search(r"Exit codes: (.*?)\.\n", text, re.DOTALL)[1]
        said = re.sub(r"\([^)]*\)", "", said)
        assert {int(code) for code in re.findall(r"(?:^|, ?)\s*(\d+) ", said)} == codes


def targets() -> set[str]:
    """Targets of the Makefile that `make help` prints."""
    return in_text(r"(?m)^([a-z-]+):.*## ", "Makefile")


def test_every_target_of_make_stands_in_the_reference_and_no_other():
    told = {name.removeprefix("make ") for name in named("target")}
    assert told == targets()
    assert targets() == set((PROJECT / "Makefile").read_text().partition(".PHONY:")[2]
                            .partition("\n\n")[0].replace("\\\n", " ").split())  # fmt: skip


@by_page
def test_targets_that_are_mentioned_exist(page):
    lines = [line for block in page.blocks("sh") for line in block.splitlines()]
    found = {
        n for text in (*page.code(), *lines) for n in re.findall(r"(?:^| )make ([a-z-]+)", text)
    }
    assert found <= targets()


def test_options_of_the_set_up_script_are_told():
    known = in_text(r"(?m)^ +(?:-h \| )?(--[a-z-]+)\)", "setup_ec2.sh")
    assert known == {"--dry-run", "--help"}
    assert all(f"`{option}`" in (PROJECT / "docs" / "reference.md").read_text() for option in known)


def test_image_demands_the_compiled_walker_as_the_readme_says():
    assert "The image is always compiled" in (PROJECT / "README.md").read_text()
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert """test -n "$(find /opt/site/taxi_duration -name '_walker*.so')\"""" in dockerfile


# --- the service ----------------------------------------------------------------------------


@pytest.fixture
def app():
    return create_app({"BACKGROUND": False})


def test_every_endpoint_stands_in_the_api_and_no_other(app):
    there = {
        (verb, rule.rule)
        for rule in app.url_map.iter_rules()
        for verb in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static"
    }
    told = {tuple(name.split(" ")) for name in named("endpoint")}
    assert {(verb, path.partition("?")[0]) for verb, path in told} == there


def test_every_query_parameter_stands_in_the_api_and_no_other(app):
    paths = app.test_client().get("/openapi.json").json["paths"]
    there = {
        (path, parameter["name"])
        for path, verbs in paths.items()
        for operation in verbs.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    }
    told = {
        (path.split(" ")[1], name)
        for path, _, query in (endpoint.partition("?") for endpoint in named("endpoint"))
        for name in re.findall(r"(\w+)=", query)
    }
    assert told == there


@pytest.mark.parametrize(
    ("title", "struct"), [("field", Ride), ("field of the answer", schema.RideAnswer)]
)
def test_every_field_stands_in_the_api_and_no_other(title, struct):
    assert named(title) == set(struct.__struct_fields__)


def test_every_status_of_an_error_stands_in_the_api(app):
    verbs = [v for path in app.test_client().get("/openapi.json").json["paths"].values()
             for v in path.values()]  # fmt: skip
    there = {status for verb in verbs for status in verb["responses"] if status != "200"}
    section = (PROJECT / "docs" / "api.md").read_text().partition("## Errors")[2]
    assert there <= set(re.findall(r"\b([45]\d\d)\b", section.partition("## ")[0]))


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict[str, set[str]]:
    """Labels of every metric that /metrics has, by the metric's name."""
    text = metrics_text(tmp_path_factory.mktemp("metrics"))
    found: dict[str, set[str]] = {
        n: set() for n in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    }
    for line in re.findall(r"^taxi_.*$", text, re.MULTILINE):
        sample, labels = re.match(r"(\w+)(?:\{(.*?)\})? ", line).groups()
        name = next(n for n in (sample, re.sub("_(bucket|sum|count)$", "", sample)) if n in found)
        found[name] |= set(re.findall(r"(\w+)=", labels or "")) - {"le"}
    # prometheus-client adds when each began, while it runs in one process.
    return {name: labels for name, labels in found.items() if not name.endswith("_created")}


def test_every_metric_stands_in_the_handbook_and_no_other(metrics):
    assert named("metric") == metrics.keys()


def test_labels_of_metrics_are_those_of_the_handbook(metrics):
    told = {INLINE.findall(row[0])[0]: set(INLINE.findall(row[1])) for row in all_rows("metric")}
    assert told == metrics


@by_page
def test_metrics_that_are_mentioned_exist(page, metrics):
    assert set(re.findall(r"\btaxi_(?!duration)\w+", page.text)) <= metrics.keys()


def test_ports_of_the_handbook_are_those_of_compose():
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"].values()
    there = {port.split(":")[-1] for service in services for port in service.get("ports", [])}
    assert {row[0] for row in all_rows("port")} == there


def first_ride() -> dict[str, Any]:
    """What README's first curl asks."""
    (call,) = (c for name, c in all_commands() if name == "README.md" and c.startswith("curl"))
    words = shlex.split(call)
    ride: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    return ride


def test_first_question_in_readme_can_be_asked_again():
    assert "pickup_datetime" in first_ride()  # without, it is about now


@pytest.mark.long
def test_first_answer_in_readme_is_that_of_the_model_of_make_run(real_months, tmp_path):
    home = tmp_path / "home"
    done = run_pipeline(
        home, "--model", "XGB", TRAIN_DATA="2021-01", VAL_DATA="2021-02", DATA="auto",
        SAMPLE_ROWS="", TLC_URL=str(real_months),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ask = (
        "import json, sys; from serve import create_app; app = create_app({'BACKGROUND': False}); "
    )
    ask += "print(app.test_client().post('/predict', json=json.loads(sys.argv[1])).text)"
    said = subprocess.run(
        [sys.executable, "-c", ask, json.dumps(first_ride())], cwd=PROJECT, check=True, text=True,
        capture_output=True, env={**os.environ, "TAXI_HOME": str(home)},
    )  # fmt: skip
    found = json.loads(said.stdout)
    (told,) = map(json.loads, Page(PROJECT / "README.md").blocks("json"))
    assert told["duration"] == pytest.approx(found["duration"], abs=0.1)
    assert told["interval"] == pytest.approx(found["interval"], abs=0.1)
    unlike = {"duration", "interval", "prediction_id"}
    assert {k: v for k, v in told.items() if k not in unlike} == {
        k: v for k, v in found.items() if k not in unlike
    }


def test_json_in_the_pages_is_what_the_service_answers(tmp_path):
    ((answer,), (error,)) = (page.blocks("json") for page in pages() if page.blocks("json"))
    client = a_service(tmp_path).test_client()
    ours = client.post("/predict", json=first_ride()).json
    assert json.loads(answer.replace("…", "")).keys() == ours.keys()
    assert json.loads(answer)["interval"].keys() == ours["interval"].keys()
    assert json.loads(error) == client.post("/predict", json={**RIDE, "trip_distance": -3}).json


# --- notebooks, files, links ----------------------------------------------------------------


def test_every_notebook_stands_in_the_reference_with_its_parameters_and_no_other():
    told = {INLINE.findall(row[0])[0]: set(INLINE.findall(row[1])) for row in all_rows("notebook")}
    stems = sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
    assert told == {stem: notebook_parameters(stem) for stem in stems}


def test_readme_counts_and_names_the_notebooks():
    readme = (PROJECT / "README.md").read_text()
    stems = [path.stem for path in (PROJECT / "notebooks").glob("*.ipynb")]
    words = {4: "Four", 5: "Five", 6: "Six"}
    assert f"{words[len(stems)]} ordered notebooks" in readme
    assert all(f"`{stem}`" in readme for stem in stems)


def test_every_settings_file_is_told():
    there = set((PROJECT / "taxi_duration").rglob("*_settings.json"))
    assert {str(path.relative_to(PROJECT)) for path in there} <= named("file")


ENDINGS = "py|md|sh|json|jsonl|yaml|yml|toml|ipynb|csv|npz|bin|html|log|db|png|txt"
FILE = re.compile(rf"\.?[a-z_][\w./-]*\.({ENDINGS})|[a-z_][\w-]*/[\w./-]*|\d\d_\w+|[A-Z][a-z]+file")
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
# Folders that commands fill; what lies in them is named by the code that writes it.
FILLED = ("runs/", "models/", "tracking/", "deployment/", "data/")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Files of the project that are not ignored by git."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return listed.stdout.splitlines()


@pytest.fixture(scope="module")
def code(tracked) -> str:
    """All of the project's own code, as one text."""
    kinds = (".py", ".sh", ".ipynb", ".yaml", "Makefile")
    ours = [file for file in tracked if file.endswith(kinds) and not file.startswith("tests/")]
    return "\n".join((PROJECT / file).read_text() for file in ours)


def is_there(name: str, tracked: list[str], code: str) -> bool:
    """Whether a name is that of a file or folder, whole or its end, or one that the code writes."""
    if any(f"/{name.rstrip('/')}/" in f"/{file}/" for file in tracked) or name in FILLED:
        return True
    last = re.escape(name.rstrip("/").rsplit("/", 1)[-1])
    return re.search(rf"""['"/]{last}['"]""", code) is not None


@by_page
def test_files_that_are_mentioned_exist(page, tracked, code):
    files = {n for n in page.code() if FILE.fullmatch(n) and not PLACEHOLDER.search(n)}
    assert not {name for name in files if not is_there(name, tracked, code)}


@by_page
def test_links_lead_somewhere(page):
    for link in page.links():
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.path.parent / file).resolve() if file else page.path
        assert target.exists(), link
        assert not anchor or anchor in Page(target).anchors(), link


@by_page
def test_pages_name_no_path_of_a_machine_and_no_package_host(page):
    assert not re.search(r"/(home/(?!ubuntu|taxi)|root/|work/|opt/)\w*|file:///opt", page.text)
