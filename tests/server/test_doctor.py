"""`doctor`: every thing that could be better names the one command that improves it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from autoresearch_mcp.lab.devices import Gpu
from autoresearch_mcp.lab.environment import TrainerPython
from autoresearch_mcp.lab.isolation import NONE, PROCESS
from autoresearch_mcp.server import doctor_machine as machine
from autoresearch_mcp.server.check import Check, Level
from autoresearch_mcp.server.host import Host

LINUX = Host(system="Linux", name="Linux", wsl=None, manager="apt-get", is_root=True)
MAC = Host(system="Darwin", name="macOS 15.1 arm64", wsl=None, manager=None, is_root=False)
WSL1 = Host(system="Linux", name="WSL 1", wsl=1, manager="apt-get", is_root=False)
GPU = Gpu(index=0, uuid="GPU-1", name="Some GPU", memory_mb=81_920)
WANTED = "torch==2.13.0"


def torch_check(torch: str, *, cuda: bool, gpus: tuple[Gpu, ...] = (), host: Host = LINUX, path: str = sys.executable) -> Check:
    python = TrainerPython(path=path, python="3.11", torch=torch, cuda=cuda)
    return machine.check_torch(python, WANTED, host, gpus)


def test_a_cuda_build_without_a_gpu_names_the_cpu_only_install() -> None:
    check = torch_check("2.13.0", cuda=True)
    assert check.level is Level.WARN
    assert check.advice == (
        f"{sys.executable} -m pip install 'torch==2.13.0+cpu' --index-url https://download.pytorch.org/whl/cpu"
    )
    assert torch_check("2.13.0", cuda=True, gpus=(GPU,)).level is Level.OK
    assert torch_check("2.13.0", cuda=False, host=MAC).level is Level.OK


def test_a_cpu_build_beside_a_gpu_names_the_cuda_install() -> None:
    check = torch_check("2.13.0+cpu", cuda=False, gpus=(GPU,))
    assert check.level is Level.WARN
    assert "--force-reinstall 'torch==2.13.0'" in check.advice


def test_another_torch_is_warned_about_only_where_nobody_chose_it() -> None:
    assert WANTED in torch_check("2.9.1+cpu", cuda=False).advice
    chosen = torch_check("2.9.1+cpu", cuda=False, path="/opt/env/bin/python")
    assert chosen.level is Level.OK
    assert "/opt/env/bin/python" in chosen.found


@pytest.mark.parametrize(
    ("gpus", "profile", "level"), [((), "cpu", Level.OK), ((), "gpu", Level.FAIL), ((GPU,), "gpu", Level.OK)]
)
def test_a_gpu_is_missed_only_by_a_lab_that_needs_one(gpus: tuple[Gpu, ...], profile: str, level: Level) -> None:
    check = machine.check_gpu(gpus, "no driver", profile=profile)
    assert check.level is level
    assert bool(check.advice) == (level is not Level.OK)


def test_an_unused_gpu_is_pointed_out() -> None:
    check = machine.check_gpu((GPU,), "", profile="cpu")
    assert "Some GPU" in check.found
    assert "--profile gpu" in check.advice


def test_the_platform_check_sends_wsl_1_to_wsl_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu")
    check = machine.check_platform(WSL1)
    assert check.level is Level.WARN
    assert check.advice.endswith("wsl --set-version Ubuntu 2")
    assert machine.check_platform(LINUX).level is Level.OK
    assert "not tested" in machine.check_platform(MAC).found


def test_a_path_with_a_space_is_named_because_torch_compile_fails_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert machine.check_compiler(LINUX, (Path("/state"),)).level is Level.OK
    check = machine.check_compiler(LINUX, (Path("/state"), Path("/Application Support/state")))
    assert "AUTORESEARCH_STATE" in check.advice
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert machine.check_compiler(MAC, ()).advice == "xcode-select --install"
    assert machine.check_git(LINUX).advice == "apt-get install -y git"


def test_each_level_of_isolation_says_what_a_candidate_can_do() -> None:
    assert "accept-isolation" in machine.check_isolation(NONE).advice
    assert "leave processes running" in machine.check_isolation(NONE).found
    assert "container" in machine.check_isolation(PROCESS).advice
