"""The first program inside a sandbox: it gives up, in its own process, what the candidate must not have, then becomes it.

    stage.py ORDER_FD STATUS_FD     read one JSON object from the first, write one line of JSON to the second, execute

The order names the limits, Landlock's paths, the system call filter, and the program with its environment. The status says
what is in force, or has an ``error``; then nothing was executed. Every restriction is one that a process can put on itself
without privilege and cannot take back. Imports nothing but the standard library: it runs by path, before any of it is there.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 28, 38
_SECCOMP_MODE_FILTER = 2
_BYTES_PER_INSTRUCTION = 8
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522
_NO_ROOT_POWERS = 0b1111  # SECBIT_NOROOT and SECBIT_NO_SETUID_FIXUP, both locked
_OUT_OF_MEMORY_FIRST = "1000"


def main() -> None:
    order_fd, status_fd = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(order_fd, "rb") as file:
        order = json.load(file)
    status: dict[str, Any] = {}
    try:
        _confine(order, status)
        if not os.access(order["argv"][0], os.X_OK):
            raise FileNotFoundError(f"there is no program {order['argv'][0]}")
        _say(status_fd, status)
        os.set_inheritable(status_fd, False)
        os.execve(order["argv"][0], order["argv"], order["environment"])
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, the candidate must not run
        with suppress(OSError):
            _say(status_fd, {"error": f"{type(error).__name__}: {error}"})
        os._exit(98)


def _confine(order: dict[str, Any], status: dict[str, Any]) -> None:
    if _LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if order["parent"] is not None and os.getppid() != order["parent"]:
            os._exit(1)  # it died before the line above took effect
        with suppress(OSError):  # read-only in some containers
            Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_FIRST)
    os.umask(0o077)
    for name, limit in order["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        capped = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (capped, capped))
    status["limits"] = sorted(order["limits"])
    os.chdir(order["folder"])
    if order["drop_capabilities"] and os.geteuid() == 0:
        _drop_capabilities()
        status["capabilities"] = "dropped"
    if order["access"] is not None:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        import landlock

        status["landlock"] = landlock.restrict(landlock.Access(**{name: tuple(at) for name, at in order["access"].items()}))
    if order["filter"] is not None:
        filter_system_calls(base64.b64decode(order["filter"]))
        status["seccomp"] = True


def _drop_capabilities() -> None:
    """Leave root with the rights of a file's owner and no others, also after an exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT_POWERS, 0, 0, 0)
    number = _CAPSET.get(platform.machine())
    if number is None:
        raise OSError(f"capabilities cannot be dropped on {platform.machine()}")
    header, nothing = struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", 0, 0, 0, 0, 0, 0)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(number), header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def filter_system_calls(program: bytes) -> None:
    """Load a compiled filter; it holds for this process and all it will start."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(program) // _BYTES_PER_INSTRUCTION, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the system call filter was refused")


def _say(fd: int, status: dict[str, Any]) -> None:
    os.write(fd, json.dumps(status).encode() + b"\n")


if __name__ == "__main__":
    main()
