"""What `doctor` asks about the machine: platform, Python, torch, processor, GPU, git, pip, sleep, disk.

Each question is a function that returns one `Check`. torch is never imported; its metadata and files say how it was built.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

from ..lab.devices import Gpu
from ..lab.environment import TrainerPython
from .awake import KEEP_AWAKE_VARIABLE, inhibitors, is_wanted
from .check import Check, Level
from .host import Host, foreign_file_system

_MIN_PYTHON = (3, 11)
_MIN_GIT = (2, 25)
_MIN_MEMORY_MB = 2048
_LITTLE_DISK_GB, _MIN_DISK_GB = 5.0, 1.0
_PROBE_SECONDS = 10
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def check_platform(host: Host) -> Check:
    """WSL 1 translates system calls and lacks some; how well other systems isolate is a check of its own."""
    if host.wsl == 1:
        distribution = os.environ.get("WSL_DISTRO_NAME", "DISTRIBUTION")
        advice = f"in PowerShell: wsl --set-version {distribution} 2"
        return Check(name="platform", level=Level.WARN, found=f"{host.name}: not supported", advice=advice)
    if host.system not in ("Linux", "Darwin"):
        return Check(name="platform", level=Level.WARN, found=f"{host.name}: not tried", advice="use Linux, macOS or WSL 2")
    note = "" if host.system == "Linux" else "; written for, not tested"
    return Check(name="platform", level=Level.OK, found=f"{host.name}{note}")


def check_python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _MIN_PYTHON:
        return Check(name="python", level=Level.FAIL, found=found, advice="install Python 3.11 or newer")
    return Check(name="python", level=Level.OK, found=found)


def check_torch(python: TrainerPython, wanted: str, host: Host, gpus: tuple[Gpu, ...]) -> Check:
    """Say how the torch that trains is built; ``wanted`` is the requirement of this package, such as ``torch==2.13.0``."""
    pip = f"{shlex.quote(python.path)} -m pip install"
    release = python.torch.partition("+")[0]
    where = "" if python.path == sys.executable else f" of {python.path}"
    found = f"{python.torch}{where}, built for {'CUDA' if python.cuda else 'the CPU'}"

    def warn(problem: str, advice: str) -> Check:
        return Check(name="torch", level=Level.WARN, found=f"{found}; {problem}", advice=advice)

    if gpus and not python.cuda:
        return warn("the GPU cannot be used with it", f"{pip} --force-reinstall 'torch=={release}'")
    if python.path == sys.executable and "==" in wanted and release != wanted.rpartition("==")[2]:
        return warn(f"this software is made for {wanted}", f"{pip} '{wanted}'")
    if python.cuda and not gpus and host.system == "Linux":
        return warn("there is no GPU, so gigabytes of it are unused", f"{pip} 'torch=={release}+cpu' --index-url {_CPU_WHEELS}")
    return Check(name="torch", level=Level.OK, found=found)


def check_processor() -> Check:
    from ..lab.machine import cores, processor, total_memory_mb

    memory_mb = total_memory_mb()
    found = f"{processor()}, {memory_mb / 1024:.1f} GB of memory"
    if cores() < 2 or memory_mb < _MIN_MEMORY_MB:
        return Check(name="processor", level=Level.WARN, found=found, advice="use a machine with 2 cores and 2 GB or more")
    return Check(name="processor", level=Level.OK, found=found)


def check_gpu(gpus: tuple[Gpu, ...], problem: str, *, profile: str) -> Check:
    """``problem`` is why the driver named none; only a lab of the gpu profile needs one."""
    if gpus:
        found = ", ".join(f"{gpu.index}: {gpu.kind}" for gpu in gpus)
        advice = "" if profile == "gpu" else "autoresearch init NEW_FOLDER --profile gpu"
        return Check(name="GPU", level=Level.OK, found=found if not advice else f"{found}; not used by this lab", advice=advice)
    if profile == "gpu":
        advice = "nvidia-smi (it must list a GPU; in WSL the driver is the one of Windows)"
        return Check(name="GPU", level=Level.FAIL, found=f"none, and the lab's profile is gpu: {problem}", advice=advice)
    return Check(name="GPU", level=Level.OK, found="none; the profile cpu needs none")


def check_git(host: Host) -> Check:
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check(name="git", level=Level.FAIL, found="not found", advice=host.install("git"))
    text = done.stdout.split()[2] if len(done.stdout.split()) > 2 else "0"
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < _MIN_GIT:
        found = f"{text}, older than {'.'.join(map(str, _MIN_GIT))}"
        return Check(name="git", level=Level.WARN, found=found, advice=host.install("git"))
    return Check(name="git", level=Level.OK, found=text)


def check_awake(host: Host) -> Check:
    """Try to keep the machine awake for a moment, as a server does while an experiment trains."""
    is_laptop = psutil.sensors_battery() is not None if hasattr(psutil, "sensors_battery") else False
    if not is_wanted():
        found = f"not kept awake while experiments train: {KEEP_AWAKE_VARIABLE} is 0"
        return Check(name="sleep", level=Level.OK, found=found)
    if host.wsl is not None:
        found = "Windows decides when this machine sleeps, and cannot be asked from here"
        return Check(name="sleep", level=Level.WARN, found=found, advice="in PowerShell: powercfg /change standby-timeout-ac 0")
    if any(_succeeds(command) for command in inhibitors(then="true")):
        lid = "; closing the lid still sends it to sleep: leave it open, and plugged in" if is_laptop else ""
        return Check(name="sleep", level=Level.OK, found=f"kept awake while experiments train{lid}")
    if host.in_container or not is_laptop:
        where = "from a container" if host.in_container else "here"
        found = f"cannot be held off {where}; it matters only where this machine sleeps when nobody uses it"
        return Check(name="sleep", level=Level.OK, found=found)
    found = "this laptop cannot be kept awake from here, and may sleep when nobody uses it"
    return Check(name="sleep", level=Level.WARN, found=found, advice="switch automatic suspend off for the night")


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False, start_new_session=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def check_pip() -> Check:
    if importlib.util.find_spec("pip") is None:
        advice = f"{sys.executable} -m ensurepip"
        return Check(name="pip", level=Level.WARN, found="none: the corpus cannot be fetched", advice=advice)
    return Check(name="pip", level=Level.OK, found=version("pip"))


def check_disk(places: dict[str, Path]) -> Check:
    """Look at the folders that environment variables name: enough room, and locks that hold."""
    free = {}
    for variable, place in places.items():
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        if (kind := foreign_file_system(existing)) is not None:
            found = f"{place} is on {kind}, where locks and SQLite are not reliable"
            return Check(name="disk", level=Level.WARN, found=found, advice=f"export {variable}=A_FOLDER_ON_A_LOCAL_DISK")
        free[place] = shutil.disk_usage(existing).free / 2**30
    place, least = min(free.items(), key=lambda item: item[1])
    found = f"{least:.1f} GB free for {place}"
    advice = f"free some space, or set {' and '.join(places)} to folders on a larger disk"
    level = Level.FAIL if least < _MIN_DISK_GB else Level.WARN if least < _LITTLE_DISK_GB else Level.OK
    return Check(name="disk", level=level, found=found, advice="" if level is Level.OK else advice)
