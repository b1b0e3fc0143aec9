"""Another Python for the candidates: what it lacks is said with the command, and what it is enters the group."""

from __future__ import annotations

import json
import os
import shlex
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.environment import require_cuda, trainer_python
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.rules import accept_rules

COMPLETE = {"torch": "2.13.0+cu130", "numpy": "2.3", "tiktoken": "0.14", "cloudpickle": "3.1"}


def fake_python(
    folder: Path, *, python: tuple[int, int] = (3, 12), versions: dict[str, str] | None = None, cuda: bool = True
) -> Path:
    """Write an interpreter that only answers the probe, and notes that it was asked."""
    versions = COMPLETE if versions is None else versions
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    answer = {"python": python, "versions": versions, "cuda": cuda, "packages": str(folder / "packages")}
    script = folder / "python"
    script.write_text(f"#!/bin/sh\necho asked >> {folder}/asked\necho {shlex.quote(json.dumps(answer))}\n")
    script.chmod(0o755)
    return script


def times_asked(folder: Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def test_without_a_choice_it_is_the_servers_own() -> None:
    found = trainer_python(None)
    assert found.path == sys.executable
    assert found.python == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found.torch


def test_an_interpreter_is_asked_once_until_its_packages_change(tmp_path: Path) -> None:
    script = fake_python(tmp_path)
    for _ in range(3):
        found = trainer_python(str(script))
    assert (found.path, found.python, found.torch, found.cuda) == (str(script), "3.12", "2.13.0+cu130", True)
    assert times_asked(tmp_path) == 1
    (tmp_path / "packages" / "something_new").mkdir()
    os.utime(tmp_path / "packages", ns=(1, 1))
    trainer_python(str(script))
    assert times_asked(tmp_path) == 2


def test_a_path_below_home_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = fake_python(tmp_path / "env")
    assert trainer_python("~/env/python").path == str(script)


def test_an_environment_without_the_packages_is_refused_with_the_command_that_installs_them(tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    with pytest.raises(NotReadyError, match=r"lacks torch, numpy, tiktoken, cloudpickle") as raised:
        trainer_python(str(python))
    assert f"Run: {python} -m pip install torch==" in str(raised.value)
    assert "'numpy" in str(raised.value)  # with its range, quoted


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda folder: folder / "missing", "does not exist", id="missing"),
        pytest.param(lambda folder: folder, "not an executable file", id="a folder"),
        pytest.param(lambda folder: Path("/bin/true"), "does not answer as a Python does", id="no Python"),
        pytest.param(lambda folder: Path("/bin/false"), "does not answer as a Python does", id="fails"),
        pytest.param(lambda folder: fake_python(folder, python=(3, 9)), "is Python 3.9, and training needs 3.11", id="old"),
        pytest.param(
            lambda folder: fake_python(folder, versions={**COMPLETE, "torch": None}),  # type: ignore[dict-item]
            "lacks torch",
            id="half installed",
        ),
    ],
)
def test_what_cannot_train_is_refused_by_name(tmp_path: Path, make: Callable[[Path], Path], expected: str) -> None:
    with pytest.raises(NotReadyError, match=expected) as raised:
        trainer_python(str(make(tmp_path)))
    assert "[trainer] python" in str(raised.value)


def test_a_torch_for_cpus_is_refused_for_a_gpu_with_both_ways_out(tmp_path: Path) -> None:
    found = trainer_python(str(fake_python(tmp_path, cuda=False)))
    with pytest.raises(NotReadyError, match=r"without CUDA.*\[trainer\] python"):
        require_cuda(found)


def test_its_torch_and_its_python_are_conditions_of_every_number(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = make_lab()
    own = lab.comparability_group()
    groups = {own}
    for number, change in enumerate(({}, {"python": (3, 13)}, {"versions": {**COMPLETE, "torch": "2.14.0"}})):
        script = fake_python(tmp_path / str(number), **change)  # type: ignore[arg-type]
        lab.workspace.config.write_text(lab.workspace.config.read_text() + f'[trainer]\npython = "{script}"\n')
        conditions = lab.conditions()
        assert (conditions["python"], conditions["torch"]) != (None, None)
        groups.add(lab.comparability_group())
        lab.workspace.config.write_text(lab.workspace.config.read_text().partition("[trainer]")[0])
    assert len(groups) == 4
    assert lab.comparability_group() == own


def test_an_environment_that_was_removed_is_noticed_before_an_experiment_is_recorded(
    make_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    script = fake_python(tmp_path / "env")
    lab = make_lab(extra=f'[trainer]\npython = "{script}"\n')
    lab.start_session(None, "tester")
    script.unlink()
    with pytest.raises(NotReadyError, match="does not exist"):
        experiments.propose(lab, description="baseline", hypothesis="")
    assert lab.ledger.count_experiments() == 0
    lab.workspace.config.write_text(lab.workspace.config.read_text().partition("[trainer]")[0])
    accept_rules(lab)
    lab.start_session("new", "tester")
