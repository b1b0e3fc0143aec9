"""Where and with what a benchmark ran, as its JSON and its tables say it. Never imports torch, and never names the host."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...lab.config import ProfileName, new_config
from ...lab.devices import CPU, Devices, Gpu, device_kind
from ...lab.environment import require_cuda, trainer_python
from ...lab.errors import GitError, NotReadyError
from ...lab.git_command import run_git
from ...lab.machine import command_path, cores, processor, total_memory_mb

_PACKAGE = Path(__file__).resolve().parents[2]
_CODE = ("lab", "prepare", "server", "trainer")  # what decides the figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware, the versions that train, and the state of the code."""

    processor: str  # "Intel Xeon (avx512f), 2 cores": name, widest instructions, cores
    cores: int
    memory_mb: int
    gpu: str | None
    system: str
    python: str
    torch: str
    version: str  # of this package
    commit: str | None  # None: not a git checkout
    dirty: bool | None  # whether the modules that run differ from the commit's

    @property
    def device(self) -> str:
        """What the numbers depend on most, in words."""
        return self.processor if self.gpu is None else f"{self.gpu}; {self.processor}"

    @property
    def code(self) -> str:
        """The version and the commit, in words."""
        if self.commit is None:
            return f"version {self.version}"
        return f"version {self.version}, commit {self.commit[:10]}{' with changes' if self.dirty else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where runs take place: one device, for the whole benchmark."""

    devices: Devices
    device: str  # "cpu", or "cuda:" and the GPU's UUID
    gpu: Gpu | None


def place_of(profile: ProfileName) -> Place:
    """Return the device of a profile, the first GPU for gpu; raises `NotReadyError` where there is none that torch can use."""
    devices, config = Devices(), new_config(profile=profile)
    if device_kind(config) == CPU:
        return Place(devices=devices, device=CPU, gpu=None)
    try:
        gpu = devices.usable_gpus(config)[0]
        require_cuda(trainer_python(None))
    except NotReadyError as error:
        reason = str(error).partition(". ")[0]
        raise NotReadyError(f"{reason}. Run `{command_path()} doctor`, or measure this CPU: --profile cpu") from None
    return Place(devices=devices, device=gpu.device, gpu=gpu)


def this_machine(gpu: Gpu | None) -> Machine:
    """Look at this machine and at the code that this process runs."""
    commit, dirty = _checkout(_PACKAGE)
    try:
        own_version = version("autoresearch-mcp")
    except PackageNotFoundError:
        own_version = "unknown"
    return Machine(
        processor=processor(),
        cores=cores(),
        memory_mb=total_memory_mb(),
        gpu=None if gpu is None else gpu.kind,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=trainer_python(None).torch,
        version=own_version,
        commit=commit,
        dirty=dirty,
    )


def _checkout(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout whose top ``folder`` is, and whether what runs differs from it."""
    git_dir = folder / ".git"
    if not git_dir.exists():
        return None, None
    try:
        commit = run_git(folder, "rev-parse", "--verify", "HEAD", git_dir=git_dir).line
        listing = run_git(folder, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *_CODE, git_dir=git_dir).stdout
    except GitError:
        return None, None
    entries = [entry.split(b"\t", 1) for entry in listing.split(b"\0") if entry]
    recorded = {name.decode(): meta.split()[2].decode() for meta, name in entries if name.endswith(b".py")}
    found = {path.relative_to(folder).as_posix(): path for part in _CODE for path in (folder / part).rglob("*.py")}
    same = found.keys() == recorded.keys() and all(_is_object(found[name], recorded[name]) for name in found)
    return commit, not same


def _is_object(path: Path, expected: str) -> bool:
    """Say whether a file has the bytes of a git object."""
    data = path.read_bytes()
    digest = hashlib.new("sha1" if len(expected) == 40 else "sha256", b"blob %d\0" % len(data) + data)
    return digest.hexdigest() == expected
