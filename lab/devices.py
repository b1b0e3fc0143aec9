"""The devices of this machine: which GPUs there are, which a lab may use, and what they are called.

A run waits for a *kind* of device, "cpu" or "cuda", and starts on one device: "cpu", or "cuda:" and the GPU's UUID, because
indexes depend on who counts. A GPU is one slot. Guarantees: CUDA_VISIBLE_DEVICES is respected as CUDA reads it, by index and
by UUID; no driver, or one that does not answer, is no GPU, at once and silently; GPUs of two kinds never share a comparability
group. Does not: divide a GPU (a MIG slice has no slot), or keep others off it. Never imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from .errors import NotReadyError
from .machine import command_path, processor

if TYPE_CHECKING:
    from .config import LabConfig

CPU, CUDA = "cpu", "cuda"  # the kinds
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver describes it."""

    index: int  # as nvidia-smi counts
    uuid: str  # "GPU-…"
    name: str  # "NVIDIA H100 80GB HBM3"
    memory_mb: int

    @property
    def device(self) -> str:
        """The name that specs, locks and the record use."""
        return f"{CUDA}:{self.uuid}"

    @property
    def kind(self) -> str:
        """What numbers depend on: "NVIDIA H100 80GB HBM3, 80 GB"."""
        return f"{self.name}, {round(self.memory_mb / 1024)} GB"


# NVML's reasons for a slow clock that say something is wrong, by their bit; a power limit at work, or nothing to do, is none.
SLOWDOWNS: Mapping[int, str] = MappingProxyType(
    {
        0x08: "hardware slowdown",
        0x20: "heat, by the driver",
        0x40: "heat, by the hardware",
        0x80: "power brake",
    }
)


class GpuDriverError(Exception):
    """The driver is not there, or does not answer; the text says what was looked for."""


class GpuDriver(Protocol):
    """What is asked of a GPU driver; every method may raise `GpuDriverError`."""

    def version(self) -> str: ...

    def gpus(self) -> Sequence[Gpu]:
        """Return every GPU of the machine, in nvidia-smi's order."""
        ...

    def used_memory_mb(self, uuid: str) -> float:
        """Return the memory in use on one GPU, whoever uses it."""
        ...

    def compute_processes(self, uuid: str) -> frozenset[int]:
        """Return the processes that compute on one GPU, by the numbers that the driver knows (a container has others)."""
        ...

    def slowdowns(self, uuid: str) -> frozenset[str]:
        """Return why one GPU is slower than it could be now, in words; a power limit at work is ordinary and not named."""
        ...


class NvmlDriver:
    """NVIDIA's management library, by nvidia-ml-py; loaded at the first question."""

    @cached_property
    def _nvml(self) -> Any:
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuDriverError(f"NVIDIA's driver (libnvidia-ml) does not answer: {error}") from None
        return pynvml

    def version(self) -> str:
        nvml = self._nvml
        try:
            return str(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError as error:
            raise GpuDriverError(str(error)) from None

    def gpus(self) -> Sequence[Gpu]:
        nvml, found = self._nvml, []
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            raise GpuDriverError(str(error)) from None
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found.append(
                    Gpu(
                        index=index,
                        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
                        name=str(nvml.nvmlDeviceGetName(handle)),
                        memory_mb=int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20,
                    )
                )
            except nvml.NVMLError:  # one that has fallen off the bus does not hide the others
                continue
        return found

    def used_memory_mb(self, uuid: str) -> float:
        nvml = self._nvml
        try:
            return nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid)).used / 2**20
        except nvml.NVMLError as error:
            raise GpuDriverError(str(error)) from None

    def compute_processes(self, uuid: str) -> frozenset[int]:
        nvml = self._nvml
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError as error:
            raise GpuDriverError(str(error)) from None
        return frozenset(int(process.pid) for process in running)

    def slowdowns(self, uuid: str) -> frozenset[str]:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            try:
                reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
            except (AttributeError, nvml.NVMLError):  # the name of before driver 535, for the same bits
                reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        except nvml.NVMLError as error:
            raise GpuDriverError(str(error)) from None
        return frozenset(word for bit, word in SLOWDOWNS.items() if reasons & bit)


@dataclass(slots=True, kw_only=True)
class FakeGpuDriver:
    """A driver for tests: these GPUs, and what is said at each question, in turn (the last answer stays)."""

    found: Sequence[Gpu] = ()
    used_mb: list[float] = field(default_factory=lambda: [0.0])
    computing: list[frozenset[int]] = field(default_factory=lambda: [frozenset()])
    slow: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    problem: str = ""  # raised instead of any answer

    def version(self) -> str:
        self._answer()
        return "0.0-fake"

    def gpus(self) -> Sequence[Gpu]:
        self._answer()
        return self.found

    def used_memory_mb(self, uuid: str) -> float:
        self._answer()
        return self.used_mb.pop(0) if len(self.used_mb) > 1 else self.used_mb[0]

    def compute_processes(self, uuid: str) -> frozenset[int]:
        self._answer()
        return self.computing.pop(0) if len(self.computing) > 1 else self.computing[0]

    def slowdowns(self, uuid: str) -> frozenset[str]:
        self._answer()
        return self.slow.pop(0) if len(self.slow) > 1 else self.slow[0]

    def _answer(self) -> None:
        if self.problem:
            raise GpuDriverError(self.problem)


class Devices:
    """The devices that this process may use. GPUs are looked for when one is wanted, and remembered once found."""

    def __init__(self, driver: GpuDriver | None = None) -> None:
        self._driver: GpuDriver = NvmlDriver() if driver is None else driver
        self._found: tuple[Gpu, ...] = ()

    def all(self) -> tuple[str, ...]:
        """Return every device that this process sees, the CPU first."""
        try:
            return (CPU, *(gpu.device for gpu in self._visible()))
        except GpuDriverError:
            return (CPU,)

    def usable(self, config: LabConfig) -> tuple[str, ...]:
        """Return the devices that runs of a config may start on; raises `NotReadyError` where there is none."""
        if device_kind(config) == CPU:
            return (CPU,)
        return tuple(gpu.device for gpu in self.usable_gpus(config))

    def device_class(self, config: LabConfig) -> str:
        """Return the kind of device, such as "AMD EPYC 9634 (avx512_bf16), 2 cores"; kinds are never compared."""
        return processor() if device_kind(config) == CPU else self.usable_gpus(config)[0].kind

    def usable_gpus(self, config: LabConfig) -> tuple[Gpu, ...]:
        """Return the GPUs of a config, all of one kind; raises `NotReadyError` that says what was looked for."""
        remedy = f'Run `{command_path()} doctor`, or set profile = "cpu" in autoresearch.toml.'
        try:
            visible = self._visible()
        except GpuDriverError as error:
            raise NotReadyError(f'profile = "gpu" needs an NVIDIA GPU, and there is none: {error}. {remedy}') from None
        if not visible:
            hidden = f" that {_VISIBLE}={os.environ[_VISIBLE]!r} lets this server see" if _VISIBLE in os.environ else ""
            raise NotReadyError(f'profile = "gpu" needs an NVIDIA GPU{hidden}, and there is none. {remedy}')
        return choose_gpus(visible, config.trainer.gpus)

    def _visible(self) -> tuple[Gpu, ...]:
        if not self._found:
            self._found = tuple(self._driver.gpus())
        return visible_gpus(self._found, os.environ.get(_VISIBLE))


def device_kind(config: LabConfig) -> str:
    """Return the kind of device that a config's runs wait for."""
    return CPU if config.profile == "cpu" else CUDA


def kind_of(device: str) -> str:
    """Return the kind of a device, or of what a queued run waits for."""
    return device.partition(":")[0]


def visible_gpus(gpus: Sequence[Gpu], variable: str | None) -> tuple[Gpu, ...]:
    """Return what CUDA_VISIBLE_DEVICES leaves of ``gpus``, in its order; None: it is not set.

    As CUDA reads it: indexes, or UUIDs that may be cut short; what follows an entry that names nothing is not seen.
    Indexes count as nvidia-smi does (CUDA's PCI_BUS_ID order).
    """
    if variable is None:
        return tuple(gpus)
    seen: list[Gpu] = []
    for entry in (part.strip() for part in variable.split(",")):
        named = [gpu for gpu in gpus if (entry.isdigit() and gpu.index == int(entry)) or _is_uuid_of(entry, gpu)]
        if len(named) != 1:
            break
        if named[0] not in seen:
            seen.append(named[0])
    return tuple(seen)


def choose_gpus(visible: Sequence[Gpu], indexes: Sequence[int]) -> tuple[Gpu, ...]:
    """Return the GPUs of one kind that ``[trainer] gpus`` names; nothing named: all of the first one's kind."""
    if not indexes:
        return tuple(gpu for gpu in visible if gpu.kind == visible[0].kind)
    there = {gpu.index: gpu for gpu in visible}
    listing = ", ".join(f"{gpu.index} ({gpu.kind})" for gpu in visible)
    if missing := [index for index in indexes if index not in there]:
        raise NotReadyError(
            f"[trainer] gpus names {', '.join(map(str, missing))}, which this server cannot see. It sees: {listing}. "
            f"Correct autoresearch.toml{f' or {_VISIBLE}' if _VISIBLE in os.environ else ''}."
        )
    chosen = tuple(there[index] for index in dict.fromkeys(indexes))
    if len({gpu.kind for gpu in chosen}) > 1:
        raise NotReadyError(
            f"[trainer] gpus = {list(indexes)} mixes kinds, and numbers of different kinds are never compared: {listing}. "
            "Name GPUs of one kind in autoresearch.toml; another lab can use the others."
        )
    return chosen


def _is_uuid_of(entry: str, gpu: Gpu) -> bool:
    return entry.startswith("GPU-") and len(entry) > len("GPU-") and gpu.uuid.startswith(entry)
