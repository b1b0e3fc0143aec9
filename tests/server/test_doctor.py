"""`doctor`: every thing that could be better names the one command that improves it."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from autoresearch_mcp.lab.devices import Gpu
from autoresearch_mcp.lab.environment import TrainerPython
from autoresearch_mcp.lab.isolation import NONE, PROCESS, IsolationLevel, probe
from autoresearch_mcp.server import doctor_machine as machine
from autoresearch_mcp.server.check import Check, Level
from autoresearch_mcp.server.doctor_compiler import Compiled, check_compiler, compile_inside
from autoresearch_mcp.server.doctor_isolation import check_isolation, raising
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


def test_a_compiler_is_one_that_has_compiled_inside_the_sandbox(tmp_path: Path) -> None:
    good = Compiled(path="/usr/bin/g++", version="g++ 12.2.0")
    assert check_compiler(good, LINUX, (tmp_path,)).level is Level.OK
    assert "/usr/bin/g++ (g++ 12.2.0)" in check_compiler(good, LINUX, ()).found
    spaced = check_compiler(good, LINUX, (Path("/state"), Path("/Application Support/state")))
    assert "AUTORESEARCH_STATE" in spaced.advice
    none = check_compiler(Compiled(path=None), LINUX, ())
    assert (none.level, none.advice) == (Level.WARN, "apt-get install -y g++")
    assert check_compiler(Compiled(path=None), MAC, ()).advice == "xcode-select --install"
    headless = Compiled(path="/usr/bin/g++", error="probe.cpp:2:10: fatal error: Python.h: No such file or directory")
    assert check_compiler(headless, LINUX, ()).advice == "apt-get install -y python3-dev"
    broken = check_compiler(Compiled(path="/usr/bin/g++", error="cannot find crt1.o"), LINUX, ())
    assert "cannot find crt1.o" in broken.found
    assert "eagerly" in broken.found


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_the_probe_compiles_and_runs_on_the_best_level_of_this_machine() -> None:
    compiled = compile_inside(probe(), None)
    assert compiled.error == ""
    assert compiled.path is not None
    assert compiled.path.endswith("g++")
    assert compiled.version


def test_a_python_that_is_none_makes_no_compiler() -> None:
    compiled = compile_inside(probe(), "/bin/false")
    assert compiled.path is None
    assert "/bin/false does not say what it consists of" in compiled.error


def test_git_is_installed_by_the_package_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.check_git(LINUX).advice == "apt-get install -y git"


def test_isolation_is_reported_by_guarantee_and_mechanism_with_what_is_not_promised() -> None:
    best = check_isolation(probe(), LINUX)
    tables = {table.title: dict(table.rows) for table in best.tables}
    assert {"clock", "metric", "memory", "ends with its run"} <= set(tables["in force"])
    assert "side channels" in tables["not promised"]["at any level"]
    weak = check_isolation(PROCESS, LINUX)
    assert weak.level is Level.WARN
    assert "accept-isolation" in weak.advice
    tables = {table.title: dict(table.rows) for table in weak.tables}
    assert tables["not promised"]["at this level"].startswith("files, secrets")
    assert "every file of this user" in tables["not promised"]["in words"]
    assert "leave processes running" in dict(check_isolation(NONE, MAC).tables[1].rows)["in words"]


NO_BWRAP, NO_LIBRARY = "bubblewrap (bwrap) is not installed", "libseccomp is not installed"
NO_LANDLOCK = "the kernel has no Landlock (Linux 5.13 or newer, not switched off)"
FORBIDDEN = (
    "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged user namespaces. "
    "On e.g. debian this can be enabled with 'sysctl kernel.unprivileged_userns_clone=1'."
)
RESTRICTED = "bwrap: setting up uid map: Permission denied"
NONE_LEFT = "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)"
USER = dataclasses.replace(LINUX, is_root=False)
FEDORA = dataclasses.replace(USER, manager="dnf")
ARCH = dataclasses.replace(LINUX, manager="pacman")
DOCKER = dataclasses.replace(LINUX, in_container=True)
UBUNTU = dataclasses.replace(USER, apparmor_restricts=True)
CONDA = dataclasses.replace(USER, manager=None)


@pytest.mark.parametrize(
    ("host", "bubblewrap", "landlock", "seccomp", "advice"),
    [
        (USER, NO_BWRAP, None, None, "sudo apt-get install -y bubblewrap"),
        (USER, NO_BWRAP, NO_LIBRARY, NO_LIBRARY, "sudo apt-get install -y libseccomp2 bubblewrap"),
        (FEDORA, NO_LIBRARY, NO_LIBRARY, NO_LIBRARY, "sudo dnf install -y libseccomp"),
        (ARCH, NO_BWRAP, NO_LANDLOCK, None, "pacman -S --noconfirm bubblewrap"),
        (CONDA, NO_BWRAP, None, None, "install bubblewrap"),
        (DOCKER, NO_BWRAP, None, None, ""),
        (DOCKER, FORBIDDEN, None, None, ""),
        (DOCKER, NO_BWRAP, NO_LIBRARY, NO_LIBRARY, "apt-get install -y libseccomp2"),
        (DOCKER, FORBIDDEN, NO_LANDLOCK, None, "run the container on a host with Linux 5.13 or newer and Landlock"),
        (USER, FORBIDDEN, None, None, "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (FEDORA, NONE_LEFT, None, None, "sudo sysctl -w user.max_user_namespaces=15000"),
        (USER, "bwrap: something else", None, None, "ask whoever runs this machine"),
        (WSL1, NO_LIBRARY, NO_LANDLOCK, NO_LIBRARY, "in PowerShell: wsl --set-version"),
        (MAC, NO_BWRAP, NO_LANDLOCK, NO_LIBRARY, "run the server in a container or virtual machine with Linux"),
        (LINUX, None, None, None, ""),
    ],
)
def test_what_raises_the_level_is_one_command_for_the_kind_of_machine(
    host: Host, bubblewrap: str | None, landlock: str | None, seccomp: str | None, advice: str
) -> None:
    said = {IsolationLevel.BUBBLEWRAP: bubblewrap, IsolationLevel.LANDLOCK: landlock, IsolationLevel.SECCOMP: seccomp}
    given = raising({level: problem for level, problem in said.items() if problem}, host)
    assert given.startswith(advice) if advice else given == ""


@pytest.mark.parametrize("host", [UBUNTU, USER], ids=["by its switch", "by what bubblewrap says"])
def test_apparmors_restriction_is_lifted_for_bubblewrap_alone(host: Host) -> None:
    advice = raising({IsolationLevel.BUBBLEWRAP: RESTRICTED}, host)
    assert advice.startswith("printf 'abi <abi/4.0>,")
    assert "profile bwrap /usr/bin/bwrap flags=(unconfined)" in advice
    assert advice.endswith("| sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap")
