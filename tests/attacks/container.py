"""A container without user namespaces, as a common GPU host gives it, emulated in one process: run an experiment inside.

    container.py LAB      confine this process as Docker does by default, run the lab's train.py, print what came of it as JSON

In force: the part of Docker's system call filter that forbids namespaces and mounts, and its default capabilities. Not in
force: its own namespaces, its masked files in /proc, the rest of its filter.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from pathlib import Path

# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE,
# SETFCAP
_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
_FORBIDDEN = (
    *(
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
    ),
    *("mount_setattr", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd", "open_by_handle_at"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "kexec_load"),
)
_NEW_NAMESPACES = [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)]
_PR_CAPBSET_DROP, _CAPSET, _CAPABILITY_VERSION = 24, {"x86_64": 126, "aarch64": 91}, 0x20080522
_RUN_SECONDS = 90.0


def confine() -> None:
    """Take from this process what Docker takes; for good."""
    import pyseccomp

    made = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for call in _FORBIDDEN:
        made.add_rule(pyseccomp.ERRNO(errno.EPERM), call)
    made.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for flag in _NEW_NAMESPACES:
        made.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    made.load()
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if capability not in _CAPABILITIES:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    kept = sum(1 << capability for capability in _CAPABILITIES)
    header, sets = struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if libc.syscall(_CAPSET[os.uname().machine], header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    confine()
    from autoresearch_mcp.lab import experiments
    from autoresearch_mcp.lab.dispatch import wait
    from autoresearch_mcp.lab.isolation import LADDER
    from autoresearch_mcp.lab.lab import Lab
    from autoresearch_mcp.lab.referee.sandbox import problem_of

    lab = Lab.open(Path(sys.argv[1]))
    lab.start_session(None, "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    experiment = wait(lab, experiment.id, _RUN_SECONDS)
    problems = {isolation.level: problem_of(isolation.level) for isolation in LADDER}
    (run,) = lab.ledger.runs(experiment.id)
    guarantees = {} if run.result is None else dict(run.result.guarantees or {})
    said = {"level": lab.isolation.level, "problems": problems, "reason": experiment.reason, "guarantees": guarantees}
    print(json.dumps({**said, "verdict": experiment.verdict, "val_bpb": experiment.val_bpb}))
    lab.close()


if __name__ == "__main__":
    main()
