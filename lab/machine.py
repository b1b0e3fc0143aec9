"""What this machine is, as far as numbers depend on it. Never imports torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd")  # the best first


def command_path() -> str:
    """Return how to call this program from a shell or a client: the console script beside the interpreter, if it is there."""
    script = Path(sys.executable).with_name("autoresearch")
    return str(script) if script.exists() else "autoresearch"


def machine_name() -> str:
    """Return what the record calls this machine."""
    return platform.node() or "unknown"


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_mb() -> int:
    return psutil.virtual_memory().total >> 20


def processor() -> str:
    """Return the kind of processor, such as "AMD EPYC 9634 (avx512_bf16), 2 cores"."""
    name, instructions = _processor()
    return f"{name} ({instructions}), {cores()} cores"


def _processor() -> tuple[str, str]:
    """Return the name and the widest instructions that decide speed and precision; virtual machines hide the model."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip().lower() in ("flags", "features"):
                flags = set(value.split())
                break
    elif sys.platform == "darwin":
        name = _apple_chip() or name
    return name, next((kind for kind in _INSTRUCTIONS if kind in flags), "baseline instructions")


def _apple_chip() -> str | None:
    """Return such as "Apple M2 Pro"; `platform` calls every one of them "arm"."""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
