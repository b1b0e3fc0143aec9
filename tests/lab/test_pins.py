"""What a session's runs are checked against: pinned before the first, renewed by the human, and never by an agent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import judge_experiment, wait
from autoresearch_mcp.lab.errors import DecisionError, NotReadyError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.pins import pins_of, renew_pins
from autoresearch_mcp.lab.records import Session
from autoresearch_mcp.lab.referee.harness import package_root
from autoresearch_mcp.lab.referee.pins import Kind, check, load_pins
from autoresearch_mcp.lab.referee.specfile import read_spec
from autoresearch_mcp.lab.states import Outcome
from autoresearch_mcp.prepare.corpus import open_corpus
from autoresearch_mcp.server.cli.application import app
from typer.testing import CliRunner

MakeLab = Callable[..., Lab]


@pytest.fixture
def corpus_folder(tiny_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny corpus that a test may damage."""
    folder = tmp_path / "cache" / tiny_corpus
    shutil.copytree(open_corpus(tiny_corpus).path, folder)
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(folder.parent))
    return folder


def make_environment(folder: Path) -> tuple[Path, Path]:
    """Make an environment with a cloudpickle of its own, all else by a link; return its Python and that cloudpickle."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    own = Path(cloudpickle.__file__).parent
    for part in (own, *own.parent.glob("cloudpickle-*.dist-info")):
        shutil.copytree(part, packages / part.name)
    return folder / "bin" / "python", packages / "cloudpickle" / "cloudpickle.py"


def pins_now(lab: Lab, session: Session | None = None) -> str:
    session = session or lab.session()
    path = pins_of(lab, session, lab.session_config(session))
    assert path is not None
    return path


def change(path: Path) -> bytes:
    """Change one byte of a file, keeping its size and its mtime; return what it was."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(before[:10] + bytes([before[10] ^ 1]) + before[11:])  # in a docstring, where it has one
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return before


def test_the_first_run_pins_what_is_there_and_the_record_says_what(lab: Lab) -> None:
    path = Path(pins_now(lab))
    (made,) = lab.ledger.events_of("pins_made")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem == made.body["sha256"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(made.body["files"][kind] > 0 for kind in (Kind.HARNESS, Kind.CORPUS, Kind.ENVIRONMENT, Kind.REFEREE))
    assert made.body["about"]["corpus_id"] == open_corpus("tiny").corpus_id
    pins = load_pins(path)
    assert pins is not None
    roots = {Path(tree.root).name for tree in pins.trees}
    assert {"torch", "numpy", "tiktoken", "cloudpickle", "psutil", "tiny", "autoresearch_mcp"} <= roots
    assert check(str(path)) is None
    assert pins_now(lab) == str(path)
    second, _ = lab.start_session("second", "tester")
    assert pins_now(lab, second) == str(path)
    assert len(lab.ledger.events_of("pins_made")) == 1
    assert lab.ledger.verify() == []


def test_a_corpus_that_was_changed_before_it_was_pinned_is_refused_with_the_command(corpus_folder: Path, lab: Lab) -> None:
    change(corpus_folder / "val.txt")
    with pytest.raises(NotReadyError, match=r"val\.txt is not what was prepared; run .* prepare --corpus tiny .*--verify"):
        pins_now(lab)


def test_a_new_token_store_is_pinned_and_takes_nothing_else_along(corpus_folder: Path, lab: Lab) -> None:
    for built in (corpus_folder / "stores").glob("train-512.*"):  # by a test before this one
        built.unlink()
    before = pins_now(lab)
    text = corpus_folder / "val.txt"
    original = change(text)
    open_corpus("tiny").token_store(512)
    after = pins_now(lab)
    assert after != before
    assert "val.txt (corpus) is not the file" in (check(after) or "")
    text.write_bytes(original)
    assert check(after) is None
    change(corpus_folder / "stores" / "train-512.bin")
    assert check(before) is None
    assert "train-512.bin (corpus) is not the file" in (check(after) or "")


def test_a_session_whose_torch_was_replaced_is_not_gone_on_with(make_lab: MakeLab, tmp_path: Path) -> None:
    python = tmp_path / "python"
    answer = {
        "python": [3, 12],
        "versions": {"torch": "2.13.0", "numpy": "2.4.0", "tiktoken": "0.14.0", "cloudpickle": "3.1.3"},
        "cuda": False,
        "packages": str(tmp_path),
    }
    python.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    lab = make_lab(pinned=True, extra=f'[trainer]\npython = "{python}"\n')
    session, _ = lab.start_session(None, "tester")
    assert check(pins_now(lab)) is None
    (made,) = lab.ledger.events_of("pins_made")
    assert made.body["files"][Kind.ENVIRONMENT] == 0  # it does not say what it consists of: its versions are all there is
    python.write_text(python.read_text().replace("2.13.0", "2.14.0"))
    with pytest.raises(NotReadyError, match=r"torch 2\.13\.0 -> 2\.14\.0.*start_session"):
        pins_now(lab, session)
    fresh, is_new = lab.start_session(None, "tester")
    assert is_new
    assert check(pins_now(lab, fresh)) is None


@pytest.mark.slow
def test_a_changed_package_takes_init_and_opens_a_group_and_a_reinstalled_one_does_not(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    python, module = make_environment(tmp_path / "environment")
    lab = make_lab(pinned=True, extra=f'[trainer]\npython = "{python}"\n')
    old, _ = lab.start_session(None, "tester")
    first = pins_now(lab)
    assert check(first) is None

    content = module.read_bytes()
    module.unlink()
    module.write_bytes(content)
    assert check(first) is None
    assert renew_pins(lab) is None
    assert pins_now(lab) != first
    assert lab.start_session(None, "tester") == (old, False)

    module.write_bytes(content + b"tampered = True\n")
    lab.start_session("new", "tester")  # an agent's way: it changes nothing about what is pinned
    said = check(pins_now(lab)) or ""
    assert f"{module} (environment) is not the file that was pinned" in said
    assert f"{python} -m pip install --force-reinstall --no-deps cloudpickle==" in said
    verify = CliRunner().invoke(app, ["verify", "--lab", str(lab.root), "--json"])
    assert verify.exit_code == 1
    assert str(module) in json.loads(verify.stdout)["problems"][0]

    init = CliRunner().invoke(app, ["init", str(lab.root)])
    assert "form a new comparability group" in init.stdout
    fresh, is_new = lab.start_session(None, "tester")
    assert is_new
    assert fresh.group != old.group
    assert check(pins_now(lab, fresh)) is None
    assert str(module) in (check(pins_now(lab, old)) or "")
    verify = CliRunner().invoke(app, ["verify", "--lab", str(lab.root)])
    assert verify.exit_code == 0
    assert f"Files pinned for session {fresh.tag}" in verify.stdout
    assert lab.ledger.verify() == []


def test_whatever_the_runner_imports_is_pinned(lab: Lab) -> None:
    pins = load_pins(Path(pins_now(lab)))
    assert pins is not None
    pinned = {(Path(tree.root) / name).resolve() for tree in pins.trees for name in tree.files}
    script = (
        "import sys, autoresearch_mcp.lab.referee.runner\n"
        "files = [getattr(module, '__file__', None) for module in list(sys.modules.values())]\n"
        "print('\\n'.join(file for file in files if file))"
    )
    done = subprocess.run([sys.executable, "-s", "-B", "-c", script], capture_output=True, text=True, check=True)
    imported = {Path(line).resolve() for line in done.stdout.splitlines() if "__editable__" not in line}
    foreign = {path for path in imported if not any(path.is_relative_to(package_root() / part) for part in ("lab", "prepare"))}
    assert len(foreign) > 200
    assert foreign - pinned - {package_root() / "__init__.py"} == set()


@pytest.mark.slow
def test_an_environment_with_the_same_content_elsewhere_is_pinned_there_and_another_is_refused(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    python, _ = make_environment(tmp_path / "environment")
    lab = make_lab(pinned=True, extra=f'[trainer]\npython = "{python}"\n')
    session, _ = lab.start_session(None, "tester")
    first, config = pins_now(lab), lab.session_config(session)
    moved, module = make_environment(tmp_path / "moved")
    elsewhere = config.model_copy(update={"trainer": config.trainer.model_copy(update={"python": str(moved)})})
    path = pins_of(lab, session, elsewhere)
    assert path not in (None, first)
    assert check(str(path)) is None
    other, module = make_environment(tmp_path / "other")
    module.write_text(module.read_text() + "tampered = True\n")
    another = config.model_copy(update={"trainer": config.trainer.model_copy(update={"python": str(other)})})
    fresh, _ = lab.start_session("new", "tester")
    for _ in range(2):
        for one in (session, fresh):
            with pytest.raises(NotReadyError, match=r"has other bytes.*init"):
                pins_of(lab, one, another)


@pytest.mark.slow
def test_a_run_under_changed_pins_is_not_started_or_tainted_and_is_kept_by_nobody(
    make_lab: MakeLab, corpus_folder: Path, tmp_path: Path, train_py: str
) -> None:
    python, module = make_environment(tmp_path / "environment")
    lab = make_lab(pinned=True, seconds=1.5, extra=f'[trainer]\npython = "{python}"\n')
    lab.start_session(None, "tester")
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    assert wait(lab, baseline.id, 120.0).keepable
    spec = dataclasses.replace(read_spec(lab.state.run(f"{baseline.id}.1")), pins=pins_now(lab))

    for kind, path in (
        (Kind.HARNESS, Path(spec.harness) / "lab" / "referee" / "scorer.py"),
        (Kind.CORPUS, corpus_folder / "val.txt"),
        (Kind.ENVIRONMENT, module),
    ):
        before = change(path)
        lab.executor.submit(dataclasses.replace(spec, run_id=f"before-{kind}"))
        result = ended(lab, f"before-{kind}")
        assert (result.outcome, result.val_bpb, result.steps) == (Outcome.LOST, None, None)
        assert f"{path} ({kind}) is not the file that was pinned" in (result.tainted or "")
        path.write_bytes(before)

    lab.executor.submit(dataclasses.replace(spec, run_id="during"))
    wait_for_training(lab, "during")
    text = corpus_folder / "val.txt"
    text.write_bytes(change(text))  # it is as it was when the run ends
    tainted = ended(lab, "during")
    assert tainted.outcome is Outcome.SCORED, tainted.reason
    assert f"{text} (corpus) was written to while the run used it" in (tainted.tainted or "")

    lab.workspace.train.write_text(train_py.replace("WIDTH = 16", "WIDTH = 24"))
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    experiment, _ = experiments.propose(lab, description="wider", hypothesis="")
    better = dataclasses.replace(tainted, val_bpb=0.1, claimed_bpb=0.1)
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": f"{experiment.id}.1", "result": result_to_json(better)})
        judge_experiment(lab, experiment)
    os.close(hold)
    with pytest.raises(DecisionError, match="tainted"):
        experiments.keep(lab, experiment.id, "it is better")


def ended(lab: Lab, run_id: str) -> RunResult:
    """Return the result of a run, which must end in time."""
    deadline = time.monotonic() + 120.0
    while (result := lab.executor.result(run_id)) is None:
        assert time.monotonic() < deadline, f"{run_id} did not end"
        lab.executor.events(since=len(lab.executor.events()), wait_seconds=0.5)
    return result


def wait_for_training(lab: Lab, run_id: str) -> None:
    deadline = time.monotonic() + 120.0
    while not any(event.run_id == run_id and event.kind == "training" for event in lab.executor.events()):
        assert time.monotonic() < deadline, f"{run_id} did not begin to train"
        lab.executor.events(since=len(lab.executor.events()), wait_seconds=0.5)
