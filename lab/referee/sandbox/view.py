"""What a sandboxed process may read: the interpreter, torch and what it needs, the system's libraries and compilers.

Nothing else is named, so nothing else is there: no other package, no dist-packages, no corpus, no cache, no lab, no home.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Programs, shared libraries, headers: what a compiler needs. Not /usr/share, and of /usr/lib only what is named.
_SYSTEM = (
    *("/usr/bin", "/usr/sbin", "/usr/include", "/usr/local/include", "/usr/libexec/gcc", "/usr/local/cuda*", "/opt/nvidia"),
    *("/usr/lib/*.so*", "/usr/lib64/*.so*", "/usr/lib32/*.so*", "/usr/local/lib/*.so*", "/usr/local/lib64/*.so*"),
    *(f"/usr/lib*/{name}" for name in ("*-linux-gnu*", "gcc*", "llvm*", "clang*", "cuda*", "nvidia*", "wsl", "bfd-plugins")),
    *("/usr/lib*/*.o", "/usr/lib*/*.a", "/usr/lib*/compat-ld", "/usr/lib*/gold-ld", "/usr/lib*/gconv", "/usr/lib*/locale"),
    *("/usr/local/lib/*-linux-gnu*", "/nix/store", "/System/Library", "/Library/Developer", "/opt/homebrew/lib"),
)
_SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/alternatives", "/etc/OpenCL")
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")  # folders where the system is not merged into /usr
_PROCESSOR = ("/sys/devices/system", "/sys/fs/cgroup/cpu.max", "/sys/kernel/mm/transparent_hugepage")
_GPU = ("/sys/devices", "/sys/bus/pci", "/sys/class", "/sys/module", "/sys/dev", "/proc/driver")
_FACTS = ("cpuinfo", "meminfo", "stat", "version", "uptime", "loadavg", "filesystems", "devices", "sys/vm", "sys/kernel")
_GPU_DEVICES = (
    "/dev/nvidia[0-9]*",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm*",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/dxg",
)
_OWN_FACTS = ("maps", "smaps", "smaps_rollup", "status", "stat", "statm", "cmdline", "comm", "environ", "auxv", "limits", "fd")
_DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Absolute paths, each with all that lies below it.

    ``listable`` are folders of which only the names may be read and what else is named here; ``hidden`` are the folders in
    them that are not. ``devices`` are device nodes, the GPU's among them.
    """

    readable: tuple[str, ...]
    listable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


def system_view(device: str) -> View:
    """Return what every process on "cpu" or "cuda:UUID" needs of the system."""
    on_gpu = device != "cpu"
    folders = [link for link in _LINKS if Path(link).is_dir() and not Path(link).is_symlink()]
    return View(
        readable=tuple(_existing([*_SYSTEM, *_SETTINGS, *folders, *(_GPU if on_gpu else _PROCESSOR)])),
        devices=tuple(_existing([*_DEVICES, *(_GPU_DEVICES if on_gpu else ())])),
    )


def process_facts() -> tuple[str, ...]:
    """Return the files of /proc about the machine and none about processes."""
    return tuple(_existing(f"/proc/{name}" for name in _FACTS))


def own_facts() -> tuple[str, ...]:
    """Return the files of /proc/self about the process; not its net, mounts and groups, which are about the machine."""
    return tuple(f"/proc/self/{name}" for name in _OWN_FACTS)


def system_links() -> list[tuple[str, str]]:
    """Return (target, link) of the top-level folders that are links into /usr."""
    return [(str(Path(link).readlink()), link) for link in _LINKS if Path(link).is_symlink()]


def _existing(patterns: Iterable[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in glob.glob(pattern))  # noqa: PTH207 - absolute patterns
