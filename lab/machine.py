"""What this machine is, as far as numbers depend on it. Never imports torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_mb() -> int:
    return psutil.virtual_memory().total >> 20


def torch_version() -> str:
    """Return the version of the torch that trains, from its metadata."""
    return version("torch")


def device_of(profile: str) -> str:
    """Return the torch device that a profile trains on."""
    return "cpu" if profile == "cpu" else "cuda:0"


def device_class(profile: str) -> str:
    """Return the kind of device, such as "AMD EPYC 9634, 2 cores"; results of different kinds are never compared."""
    if profile == "cpu":
        return f"{_processor_name()}, {cores()} cores"
    return _gpu_name() or "no GPU"


def _processor_name() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_name() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
