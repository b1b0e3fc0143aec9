"""The strongest rung: namespaces of its own by bubblewrap, Landlock and a system call filter inside.

In its mount namespace nothing exists but the view; in its process namespace no process but its own, which all end with its
first; its network has nobody else in it. Landlock inside also stops what a mount namespace lets through: an inherited read-only
descriptor that is opened again for writing. Needs user namespaces, which some containers and distributions forbid.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ....prepare import landlock
from . import filters
from .confinement import Confinement, file_guarantees
from .rung import IsolationLevel, Restrictions
from .view import process_facts, system_links

TEMPORARY = "/tmp"  # where a candidate finds the folder of its TMPDIR
_SHARED_MEMORY_BYTES, _TEMPORARY_BYTES = 512 << 20, 64 << 20
# Inside it could not be said any more: there /proc is read-only, so that nothing there takes it back either.
_FIRST_OUT_OF_MEMORY = ("/bin/sh", "-c", 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; exec "$0" "$@"')
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
        mounts += ["--remount-ro", "/proc"] if confinement.device == "cpu" else _cover_settings()
        memory_mb = confinement.limits.memory_mb
        shared = _SHARED_MEMORY_BYTES if memory_mb is None else min(_SHARED_MEMORY_BYTES, memory_mb << 20)
        mounts += ["--size", str(shared), "--tmpfs", "/dev/shm"]
        temporary = [folder / "tmp" for folder in confinement.writable if (folder / "tmp").is_dir()]
        if confinement.scores or not temporary:
            mounts += ["--size", str(_TEMPORARY_BYTES), "--tmpfs", TEMPORARY]
        else:  # a short name for it: that of a socket in it has no more than 108 bytes
            mounts += ["--bind", str(temporary[0]), TEMPORARY]
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
            *_FIRST_OUT_OF_MEMORY,
            shutil.which("bwrap") or "bwrap",
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--die-with-parent", "--cap-drop", "ALL", "--hostname", "sandbox"),
            *mounts,
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"),
            *stage,
        ]

    def restrictions(self, confinement: Confinement) -> Restrictions:
        on_gpu = confinement.device != "cpu"
        own = (*(("/proc",) if on_gpu else ()), *(() if confinement.scores else ("/tmp", "/dev/shm")))  # CUDA names its threads
        access = None
        if landlock.abi():
            access = {
                "readable": (*confinement.view.readable, *process_facts(), "/proc" if on_gpu else "/proc/self"),
                "listable": (*confinement.view.listable,),
                "writable": (*map(str, confinement.writable), *own),
                "devices": confinement.view.devices,
            }
        return Restrictions(
            access=access, filter=filters.compile_filter(scores=confinement.scores, alone=False, counted=not on_gpu)
        )

    def exit_code(self, code: int) -> int:
        return 128 - code if code in _SIGNALLED else code

    def guarantees(self, status: Mapping[str, Any]) -> dict[str, str]:
        inside = f", Landlock ABI {status['landlock']} inside" if status.get("landlock") else ""
        return {
            "files": f"mount namespace: only what training needs, read-only{inside}",
            "secrets": f"not mounted{inside}",
            **file_guarantees("not mounted"),
            "network": "network namespace of its own, seccomp refuses sockets of every family but UNIX",
            "other processes": "process namespace, seccomp",
            "ends with its run": "process namespace, child subreaper, death with the runner",
        }


def _cover_settings() -> list[str]:
    """Return the mounts that keep what is not about processes in /proc from being written.

    bubblewrap tries this itself for some, and passes over /proc/sys where it is not writable as a folder; its files are, for
    root, and they are those of the whole machine.
    """
    found = [path for path in Path("/proc").iterdir() if not path.name.isdigit() and not path.is_symlink()]
    settings = sorted(str(path) for path in found if path.is_dir() or path.stat().st_mode & 0o222)
    return [part for path in settings for part in ("--ro-bind-try", path, path)]


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths that do not lie below another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not kept or not Path(path).is_relative_to(kept[-1]):
            kept.append(path)
    return kept
