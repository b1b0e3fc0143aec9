"""What kind of machine this is, and with which command a person installs something on it. Reads names; installs nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import psutil

Thing = Literal["git", "C++ compiler", "bubblewrap", "libseccomp", "Python headers"]

# The package managers in the order in which they are looked for, and what they call the things.
_MANAGERS: Mapping[str, tuple[str, Mapping[Thing, str]]] = MappingProxyType(
    {
        "apt-get": (
            "apt-get install -y",
            {"C++ compiler": "g++", "libseccomp": "libseccomp2", "Python headers": "python3-dev"},
        ),
        "dnf": ("dnf install -y", {"C++ compiler": "gcc-c++", "Python headers": "python3-devel"}),
        "zypper": (
            "zypper install -y",
            {"C++ compiler": "gcc-c++", "libseccomp": "libseccomp2", "Python headers": "python3-devel"},
        ),
        "pacman": ("pacman -S --noconfirm", {"C++ compiler": "gcc", "Python headers": "python"}),
        "apk": ("apk add", {"C++ compiler": "g++", "Python headers": "python3-dev"}),
    }
)  # where a thing is not named, its package is called as it is
_WITHOUT_MANAGER: Mapping[Thing, str] = {"C++ compiler": "g++ or clang++", "Python headers": "Python's headers"}

# Where locks may hold on one machine only, and SQLite's write-ahead log cannot share memory. 9p and drvfs: Windows in WSL.
_FOREIGN_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "afpfs", "webdav", "9p", "drvfs", "fuse.sshfs", "lustre", "beegfs", "gpfs"}
)

_CONTAINER_MARKS = (".dockerenv", "run/.containerenv")
_APPARMOR_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine, as far as advice depends on it.

    Attributes:
        name: for people, such as "Linux 6.8.0 x86_64" or "WSL 2 (Linux 5.15.0-microsoft-standard-WSL2 x86_64)".
        wsl: the version of the Windows Subsystem for Linux; None elsewhere.
        in_container: this looks like a container (Docker, Podman, Kubernetes, LXC).
        apparmor_restricts: the kernel lets AppArmor restrict user namespaces of ordinary users, as Ubuntu does since 23.10.
        manager: the package manager that was found; None on macOS, whose tools come with Xcode, and where there is none.
    """

    system: str  # as platform.system() says it: "Linux", "Darwin"
    name: str
    wsl: int | None
    manager: str | None
    is_root: bool
    in_container: bool = False
    apparmor_restricts: bool = False

    def install(self, *things: Thing) -> str:
        """Return the one command that installs ``things`` here."""
        if self.system == "Darwin":
            return "xcode-select --install"
        if self.manager is None:
            return f"install {' and '.join(_WITHOUT_MANAGER.get(thing, thing) for thing in things)}"
        command, names = _MANAGERS[self.manager]
        return f"{self.sudo}{command} {' '.join(names.get(thing, thing) for thing in things)}"

    @property
    def sudo(self) -> str:
        """What a command that changes the system begins with."""
        return "" if self.is_root else "sudo "


def this_host() -> Host:
    """Return the machine that this process runs on."""
    return describe_host(
        system=platform.system(),
        release=platform.release(),
        version=platform.mac_ver()[0] or platform.release(),
        processor=platform.machine(),
        which=shutil.which,
        is_root=os.geteuid() == 0,
        in_container=_in_container(),
        apparmor_restricts=_reads(_APPARMOR_SWITCH, "1"),
    )


def describe_host(
    *,
    system: str,
    release: str,
    version: str,
    processor: str,
    which: Callable[[str], str | None],
    is_root: bool,
    in_container: bool = False,
    apparmor_restricts: bool = False,
) -> Host:
    """Return the machine that these facts describe; ``release`` is the kernel's, ``version`` what people call the system."""
    wsl = wsl_version(system, release)
    plain = f"{'macOS' if system == 'Darwin' else system} {version} {processor}"
    return Host(
        system=system,
        name=plain if wsl is None else f"WSL {wsl} ({plain})",
        wsl=wsl,
        manager=next((name for name in _MANAGERS if which(name)), None) if system == "Linux" else None,
        is_root=is_root,
        in_container=in_container,
        apparmor_restricts=apparmor_restricts,
    )


def _in_container(root: Path = Path("/")) -> bool:
    """Say whether one of the marks that container engines leave is there."""
    if any((root / mark).exists() for mark in _CONTAINER_MARKS):
        return True
    return any(name in os.environ for name in ("KUBERNETES_SERVICE_HOST", "container"))


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_text().strip() == text
    except OSError:
        return False


def wsl_version(system: str, release: str) -> int | None:
    """Return 1 or 2 from the kernel's release (4.4.0-19041-Microsoft, 5.15.90.1-microsoft-standard-WSL2), None outside WSL.

    WSL 1 translates system calls, WSL 2 is a Linux kernel; a kernel that somebody built for WSL 2 may be called anything.
    """
    if system != "Linux" or "microsoft" not in release.lower():
        return None
    return 1 if release.endswith("-Microsoft") else 2


def foreign_file_system(path: Path, mounts: Mapping[str, str] | None = None) -> str | None:
    """Return the kind of file system that ``path`` lies on if it is a network's or Windows's, else None.

    ``mounts`` is mount point -> kind; by default this machine's.
    """
    if mounts is None:
        mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    for folder in (path, *path.parents):
        if (kind := mounts.get(str(folder))) is not None:
            return kind if kind.lower() in _FOREIGN_FILE_SYSTEMS else None
    return None
