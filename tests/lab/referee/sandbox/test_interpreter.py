"""The interpreter that a run sees: torch's closure and nothing else that is installed, also in what it starts."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from autoresearch_mcp.lab import python_probe
from autoresearch_mcp.lab.isolation import LADDER, IsolationLevel
from autoresearch_mcp.lab.referee.sandbox import LADDER as RUNGS
from autoresearch_mcp.lab.referee.sandbox import InterpreterError, make_interpreter, package_folder, problem_of, try_program

FOREIGN = ("mcp", "pydantic", "git", "pytest", "psutil", "pip", "autoresearch_mcp", "platformdirs", "typer")
NEEDED = ("torch", "numpy", "tiktoken", "cloudpickle", "setuptools")
# Without an import of torch, which takes seconds.
LOOK = f"""
import importlib.util, json, os, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps({{
    "found": [name for name in {FOREIGN + NEEDED!r} if there(name)],
    "path": sys.path,
    "site": [name for name in ("sitecustomize", "usercustomize") if name in sys.modules],
    "prefix": sys.prefix,
    "program": sys.executable,
}}))
"""
START = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {LOOK!r}], check=True)"


def looked(program: Path, source: str = LOOK) -> dict:
    command = [str(program), "-I", "-B", "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd="/", env={})
    return json.loads(done.stdout)


@pytest.mark.parametrize("source", [LOOK, START], ids=["itself", "what it starts"])
def test_it_finds_what_training_needs_and_nothing_else_that_is_installed(tmp_path: Path, source: str) -> None:
    interpreter = make_interpreter(None, tmp_path / "python")
    seen = looked(interpreter.program, source)
    assert seen["found"] == list(NEEDED)
    assert seen["program"] == str(interpreter.program)
    assert seen["prefix"] == str(tmp_path / "python")
    assert not any("dist-packages" in path for path in seen["path"])
    own = [path for path in seen["path"] if "site-packages" in path]
    assert own == [str(package_folder(interpreter))]


def test_nothing_in_it_runs_by_itself(tmp_path: Path) -> None:
    packages = package_folder(make_interpreter(None, tmp_path / "python"))
    names = [path.name for path in packages.iterdir()]
    assert "torch" in names
    assert not [name for name in names if name.endswith(".pth") or "customize" in name or name == "__pycache__"]
    assert all(path.is_symlink() for path in packages.iterdir())


def test_what_the_sandbox_may_read_is_the_interpreter_and_no_folder_of_other_packages(tmp_path: Path) -> None:
    view = make_interpreter(None, tmp_path / "python").view
    installed = Path(sysconfig.get_path("purelib")).resolve()
    assert all(Path(path).exists() for path in (*view.readable, *view.listable, *view.hidden))
    for readable in map(Path, view.readable):
        assert not installed.is_relative_to(readable), readable
    assert str(installed / "torch") in view.readable
    assert not any(Path(path).name in ("site-packages", "dist-packages", "test", "ensurepip") for path in view.readable)


@pytest.mark.parametrize("level", [isolation.level for isolation in LADDER])
def test_on_every_rung_what_it_starts_sees_the_same(level: IsolationLevel) -> None:
    if (problem := problem_of(level)) is not None:
        pytest.skip(problem)
    trial = try_program(RUNGS[level], START)
    assert trial.problem is None
    assert json.loads(trial.output)["found"] == list(NEEDED)


def test_another_configured_python_gives_its_own_packages_and_none_of_its_pth_files(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport sys; sys.stray = True\n")
    (packages / "sitecustomize.py").write_text("import sys\nsys.stray = True\n")
    (packages / "stray.py").write_text("")
    interpreter = make_interpreter(str(environment / "bin" / "python"), tmp_path / "python")
    seen = looked(interpreter.program)
    assert seen["found"] == list(NEEDED)
    of_the_system = Path(sysconfig.get_path("stdlib"), "sitecustomize.py").exists()  # Debian's Python has one
    assert seen["site"] == (["sitecustomize"] if of_the_system else [])
    assert seen["prefix"] == str(tmp_path / "python")
    with pytest.raises(subprocess.CalledProcessError):
        looked(interpreter.program, "import stray")
    assert looked(interpreter.program, "import json, sys; print(json.dumps({'stray': hasattr(sys, 'stray')}))") == {
        "stray": False
    }


def test_a_program_that_is_no_python_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InterpreterError, match="/bin/false does not say what it consists of"):
        make_interpreter("/bin/false", tmp_path / "python")


def test_the_layout_names_files_that_exist_and_are_no_links() -> None:
    layout = python_probe.layout()
    for path in (layout["executable"], layout["standard"], *layout["files"], *layout["entries"].values()):
        assert Path(path).exists()
        assert str(Path(path).resolve()) == path


@pytest.mark.slow
def test_what_training_needs_can_be_imported(tmp_path: Path) -> None:
    program = make_interpreter(None, tmp_path / "python").program
    source = f"import json\nimport {', '.join(NEEDED)}\nprint(json.dumps({{'torch': torch.__version__}}))"
    assert looked(program, source)["torch"]
