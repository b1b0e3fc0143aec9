"""The command line: it says what it does, prints what was asked for, and fails in one line with the right exit code."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from autoresearch_mcp.lab.experiments import propose
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.server.cli.errors import CommandGroup
from autoresearch_mcp.server.cli.record_commands import Part, Sort
from autoresearch_mcp.tools.catalog import TOOLS
from autoresearch_mcp.tools.history import history
from autoresearch_mcp.tools.show_experiment import show_experiment
from typer.testing import CliRunner, Result

COMMANDS = [
    "init",
    "prepare",
    "install",
    "uninstall",
    "doctor",
    "where",
    "research",
    "serve",
    "run",
    "keep",
    "confirm",
    "calibrate",
    "finalize",
    "revert",
    "cancel",
    "accept-config",
    "accept-isolation",
    "pause",
    "resume",
    "repair",
    "history",
    "show",
    "status",
    "report",
    "plot",
    "export",
    "verify",
]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def one_line_error(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("autoresearch: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_help_lists_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}  ", result.stdout, re.MULTILINE), command


def test_help_names_sections_of_the_rules_in_their_brackets() -> None:
    assert "by the rules of [early_stop]" in " ".join(call("early-stop", "--help").stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "--lab" in result.stdout


def test_the_choices_are_those_of_the_tools() -> None:
    assert [sort.value for sort in Sort] == list(get_args(get_type_hints(history)["sort"]))
    assert [part.value for part in Part] == list(get_args(get_type_hints(show_experiment)["part"]))


@pytest.mark.parametrize(
    "command",
    [["history"], ["status"], ["keep", "e0001"], ["run", "-d", "baseline"], ["verify"], ["plot"], ["report"], ["finalize"]],
)
def test_outside_a_lab_the_error_is_one_line_that_names_the_next_command(command: list[str], tmp_path: Path) -> None:
    error = one_line_error(call(*command, "--lab", tmp_path))
    assert f"autoresearch init {tmp_path}" in error


def test_a_broken_config_names_file_key_and_value(lab: Lab) -> None:
    lab.workspace.config.write_text("[budget]\nseconds = -3\n")
    error = one_line_error(call("status", "--lab", lab.root))
    assert str(lab.workspace.config) in error
    assert "budget.seconds = -3" in error


def test_an_unknown_experiment_is_refused_in_one_line(lab: Lab) -> None:
    for command in (["keep"], ["revert"], ["cancel"], ["show"]):
        assert "e0099" in one_line_error(call(*command, "e0099", "--lab", lab.root))


def test_an_interrupt_exits_with_130() -> None:
    interrupted = typer.Typer(cls=CommandGroup)

    @interrupted.command()
    def work() -> None:
        raise KeyboardInterrupt

    @interrupted.command()
    def rest() -> None:
        """A second command makes it a group."""

    result = CliRunner().invoke(interrupted, ["work"])
    assert result.exit_code == 130
    assert result.stderr == "autoresearch: interrupted\n"


def test_an_unexpected_error_is_not_swallowed() -> None:
    broken = typer.Typer(cls=CommandGroup)

    @broken.command()
    def work() -> None:
        raise ZeroDivisionError

    @broken.command()
    def rest() -> None:
        """A second command makes it a group."""

    assert isinstance(CliRunner().invoke(broken, ["work"]).exception, ZeroDivisionError)


def test_the_history_of_an_empty_lab_names_its_neighbours(
    make_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_STATE", str(tmp_path / "state"))
    empty, neighbour = make_lab(name="empty"), make_lab(name="neighbour")
    result = call("history", "--json", "--lab", empty.root)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["total"] == 0
    assert str(neighbour.root) in answer["hint"]
    assert "neighbour" in call("history", "--lab", empty.root).stdout


def test_a_folder_inside_the_lab_finds_it(lab: Lab) -> None:
    assert json.loads(call("status", "--json", "--lab", lab.root / "trainer").stdout)["lab"] == str(lab.root)


def test_init_makes_a_lab_once_and_says_what_comes_next(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first = call("init", folder, "--budget-seconds", "7")
    assert first.exit_code == 0
    assert "trainer/train.py" in first.stdout
    assert "Calibrated: others use " in first.stdout
    assert f"autoresearch research --lab {folder}" in first.stdout
    assert "seconds = 7.0" in (folder / "autoresearch.toml").read_text()
    (folder / "program.md").write_text("mine")
    second = call("init", folder)
    assert second.exit_code == 0
    assert "no file was changed" in second.stdout
    assert (folder / "program.md").read_text() == "mine"


def test_a_copied_lab_needs_an_identity_of_its_own(lab: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(lab.root, copy)
    assert "init --new-identity" in one_line_error(call("status", "--lab", copy))
    assert call("init", copy, "--new-identity").exit_code == 0
    assert json.loads(call("status", "--json", "--lab", copy).stdout)["session"] is None


def test_verify_is_silent_about_a_whole_record_and_fails_on_a_changed_one(lab: Lab) -> None:
    assert call("verify", "--lab", lab.root).exit_code == 0
    with sqlite3.connect(lab.state.ledger) as ledger:
        ledger.execute("UPDATE events SET body = replace(body, 'tester', 'someone') WHERE kind = 'session_started'")
    ledger.close()
    result = call("verify", "--json", "--lab", lab.root)
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert not answer["ok"]
    assert "session_started" in answer["problems"][0]
    assert "session_started" in call("verify", "--lab", lab.root).stderr


def test_the_human_accepts_rules_pauses_and_resumes(lab: Lab) -> None:
    assert "Nothing has changed" in call("accept-config", "--lab", lab.root).stdout
    lab.workspace.config.write_text(lab.workspace.config.read_text() + "[stop]\nexperiments = 9\n")
    lab.workspace.program.write_text("a new plan\n")
    said = call("accept-config", "--lab", lab.root).stdout
    assert "stop.experiments: 0 -> 9" in said
    assert "+a new plan" in said
    assert f"Session {lab.session().tag} goes on" in said
    assert json.loads(call("accept-config", "--lab", lab.root, "--json").stdout)["changes"] == []
    assert "Paused" in call("pause", "--reason", "the machine is needed", "--lab", lab.root).stdout
    refused = one_line_error(call("run", "--description", "baseline", "--lab", lab.root))
    assert "the machine is needed" in refused
    assert json.loads(call("pause", "--lab", lab.root, "--json").stdout) == {"paused": True, "changed": False}
    assert "may go on" in call("resume", "--lab", lab.root).stdout
    assert json.loads(call("resume", "--lab", lab.root, "--json").stdout) == {"paused": False, "changed": False}


def test_a_change_of_what_numbers_mean_is_accepted_for_the_next_session(lab: Lab) -> None:
    lab.workspace.config.write_text(lab.workspace.config.read_text().replace("seconds = 2.0", "seconds = 4.0"))
    said = call("accept-config", "--lab", lab.root).stdout
    assert "budget.seconds: 2.0 -> 4.0" in said
    assert "not comparable" in said


def test_repair_puts_back_what_is_missing_and_says_so(lab: Lab, tmp_path: Path) -> None:
    assert call("repair", "--lab", lab.root).stdout == "Nothing is missing.\n"
    lab.workspace.config.unlink()
    lab.workspace.program.unlink()
    assert json.loads(call("repair", "--lab", lab.root, "--json").stdout)["done"] == ["Wrote program.md again."]
    assert lab.workspace.config.exists()
    assert "not inside a git repository" in one_line_error(call("repair", "--lab", tmp_path, "--state", "nobody"))


def test_where_names_what_exists(lab: Lab, tmp_path: Path) -> None:
    places = json.loads(call("where", "--json", "--lab", lab.root).stdout)
    assert places["lab"] == str(lab.root)
    for name in ("lab", "config", "program", "state", "ledger", "cache"):
        assert Path(places[name]).exists(), name
    outside = call("where", "--lab", tmp_path)
    assert outside.exit_code == 0
    assert "autoresearch init" in outside.stderr


def test_plot_writes_a_png_even_before_the_first_experiment(lab: Lab, tmp_path: Path) -> None:
    chart = tmp_path / "chart.png"
    result = call("plot", "--output", chart, "--lab", lab.root)
    assert result.exit_code == 0
    assert result.stdout == f"{chart}\n"
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert call("plot", "--session", "nope", "--lab", lab.root).exit_code == 2
    assert call("plot", "--output", tmp_path / "no" / "chart.png", "--lab", lab.root).exit_code == 2


def test_report_prints_markdown_writes_it_to_a_file_or_answers_in_json(lab: Lab, tmp_path: Path) -> None:
    printed = call("report", "--lab", lab.root).stdout
    assert printed.startswith(f"# autoresearch: session {lab.session().tag}\n")
    assert printed.endswith("\n")
    destination = tmp_path / "report.md"
    assert call("report", "--output", destination, "--lab", lab.root).stdout == f"{destination}\n"
    assert destination.read_text().splitlines()[0] == printed.splitlines()[0]
    answer = json.loads(call("report", "--json", "--lab", lab.root).stdout)
    assert (answer["session"], answer["omitted"]) == (lab.session().tag, "")
    assert "nope" in one_line_error(call("report", "--session", "nope", "--lab", lab.root))
    assert call("report", "--output", tmp_path / "no" / "report.md", "--lab", lab.root).exit_code == 2


def test_history_filters_by_program_and_show_prints_a_program_as_it_was_accepted(still: Lab) -> None:
    experiment, _ = propose(still, description="baseline", hypothesis="")
    program = still.workspace.program.read_text()
    answer = json.loads(call("history", "--json", "--lab", still.root).stdout)
    (summary,) = answer["programs"]
    assert summary["program"] == experiment.program_sha256[:8]
    filtered = json.loads(call("history", "--program", summary["program"], "--json", "--lab", still.root).stdout)
    assert filtered["total"] == 1
    assert summary["program"] in one_line_error(call("history", "--program", "ffffffff", "--lab", still.root))
    still.workspace.program.write_text("# Another plan\n")
    assert call("show", experiment.id, "--part", "program", "--lab", still.root).stdout == program


def test_wrong_choices_are_usage_errors() -> None:
    for arguments in (
        ["research", "--strategy", "magic"],
        ["prepare", "--corpus", "nope"],
        ["history", "--sort", "worst"],
        ["no"],
    ):
        assert call(*arguments).exit_code == 2


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "matplotlib", "rich", "mcp", "git", "tiktoken"}
    code = f"import sys, autoresearch_mcp.server.cli.application; print(sorted({heavy!r} & set(sys.modules)))"
    assert _python(code) == "[]"


def test_serving_imports_neither_torch_nor_numpy_nor_matplotlib_nor_rich() -> None:
    heavy = {"torch", "numpy", "matplotlib", "rich"}
    code = (
        "import sys, autoresearch_mcp.server.cli.application, autoresearch_mcp.server.app; "
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    assert _python(code) == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["serve"], ["doctor"]])
def test_where_python_has_no_posix_the_answer_is_wsl_and_no_traceback(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.modules['fcntl'] = None; sys.argv = ['autoresearch', *{arguments!r}]; "
        "from autoresearch_mcp.server.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "wsl --install" in done.stderr
    assert "Traceback" not in done.stderr


def test_accept_isolation_explains_the_level_and_needs_a_terminal_only_where_it_asks(lab: Lab) -> None:
    result = call("accept-isolation", "--lab", lab.root)
    assert result.exit_code == 0
    assert "use the network" in result.stdout
    assert json.loads(call("accept-isolation", "--json", "--lab", lab.root).stdout)["accepted"]


@pytest.mark.slow
def test_doctor_starts_the_server_and_reports_every_part(lab: Lab) -> None:
    result = call("doctor", "--json", "--lab", lab.root)
    answer = json.loads(result.stdout)
    checks = {check["name"]: check for check in answer["checks"]}
    assert checks.keys() >= {
        "platform",
        "python",
        "torch",
        "processor",
        "GPU",
        "C++ compiler",
        "git",
        "lab",
        "corpus",
        "corpora",
        "disk",
        "isolation",
        "server",
    }
    assert re.match(rf"{len(TOOLS)} tools \d+\.\d s", checks["server"]["found"])
    assert answer["ok"] == (result.exit_code == 0)
    assert all(check["advice"] for check in answer["checks"] if check["level"] != "ok")
    tables = {table["title"]: dict(table["rows"]) for table in checks["isolation"]["tables"]}
    assert tables["in force"].keys() >= {"clock", "metric", "environment", "ends with its run"}
    assert tables["not promised"]


@pytest.mark.slow
def test_research_on_a_file_that_does_not_parse_says_so_and_exits_1(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(train="def (:\n")
    result = call("research", "--lab", lab.root, "--budget-seconds", "2", "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("autoresearch: ")


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
