"""The strongest rung: namespaces of its own by bubblewrap, Landlock and a system call filter inside.

In its mount namespace nothing exists but the view; in its process namespace no process but its own, which all end with its
first; its network has no interface. Landlock inside also stops what a mount namespace lets through: an inherited read-only
descriptor that is opened again for writing. Needs user namespaces, which some containers and distributions forbid.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ....prepare import landlock
from . import filters
from .confinement import Confinement
from .rung import IsolationLevel, Restrictions
from .view import process_facts, system_links

_SHARED_MEMORY_BYTES, _TEMPORARY_BYTES = 512 << 20, 64 << 20
_SIGNALLED = range(129, 193)  # bubblewrap answers 128 and the signal


class Bubblewrap:
    """Implements `rung.Rung`."""

    level = IsolationLevel.BUBBLEWRAP

    def missing(self) -> str | None:
        if shutil.which("bwrap") is None:
            return "bubblewrap (bwrap) is not installed"
        return None if filters.is_available() else "libseccomp is not installed"

    def command(self, stage: list[str], confinement: Confinement) -> list[str]:
        view = confinement.view
        mounts: list[str] = []
        for target, link in system_links():
            mounts += ["--symlink", target, link]
        mounts += ["--proc", "/proc", "--dev", "/dev"]
        mounts += [
            "--size",
            str(_SHARED_MEMORY_BYTES),
            "--tmpfs",
            "/dev/shm",
            "--size",
            str(_TEMPORARY_BYTES),
            "--tmpfs",
            "/tmp",
        ]
        beneath = [path for path in view.readable if _is_below(path, view.hidden)]
        for path in _outermost({*view.readable, *view.listable}.difference(beneath)):
            if not path.startswith("/proc"):
                mounts += ["--ro-bind-try", path, path]
        for folder in view.hidden:
            mounts += ["--tmpfs", folder]
        for path in _outermost(beneath):
            mounts += ["--ro-bind-try", path, path]
        for folder in view.hidden:
            mounts += ["--remount-ro", folder]
        for device in view.devices:
            mounts += ["--dev-bind-try", device, device]
        for folder in confinement.writable:
            mounts += ["--bind", str(folder), str(folder)]
        return [
            shutil.which("bwrap") or "bwrap",
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--die-with-parent", "--cap-drop", "ALL", "--hostname", "sandbox"),
            *mounts,
            *("--remount-ro", "/", "--chdir", "/", "--"),
            *stage,
        ]

    def restrictions(self, confinement: Confinement) -> Restrictions:
        own = ("/proc",) if confinement.scores else ("/proc", "/tmp", "/dev/shm")
        access = None
        if landlock.abi():
            access = {
                "readable": (*confinement.view.readable, *process_facts(), "/proc"),
                "listable": (*confinement.view.listable,),
                "writable": (*map(str, confinement.writable), *own),
                "devices": confinement.view.devices,
            }
        return Restrictions(
            access=access, filter=filters.compile_filter(scores=confinement.scores, alone=False, truncation=False)
        )

    def exit_code(self, code: int) -> int:
        return 128 - code if code in _SIGNALLED else code

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        inside = f", Landlock ABI {status['landlock']} inside" if status.get("landlock") else ""
        return {
            "files": f"mount namespace: only what training needs, read-only{inside}",
            "secrets": f"not mounted{inside}",
            "network": "network namespace without an interface, seccomp",
            "other processes": "process namespace, seccomp",
            "ends with its run": "process namespace, child subreaper, death with the runner",
        }


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths that do not lie below another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not kept or not Path(path).is_relative_to(kept[-1]):
            kept.append(path)
    return kept
