"""The system call filter of a sandboxed process, compiled by libseccomp.

What is refused: reaching other processes (ptrace, their memory, pidfd), sockets, namespaces and mounts, io_uring, kernel
keys, BPF, System V and POSIX queues. Where no mount namespace and no process namespace help, also what Landlock has no right
for: changes of metadata and of process groups, which answer "done" and do nothing, and acts on other processes.
A process that scores may in addition not use what two processes could signal through without writing: file locks, leases,
notifications, and what tells which pages of a file are in memory.
Stacked on other filters, such as a container's; allowed is what is not named here.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

try:
    import pyseccomp
except (ImportError, OSError, RuntimeError):  # another platform, or no libseccomp
    pyseccomp = None

_REACH_PROCESSES = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "kcmp")
_CHANGE_THE_SYSTEM = (
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "open_by_handle_at", "kexec_load", "kexec_file_load", "init_module"),
    *("finit_module", "delete_module", "reboot", "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "syslog"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "bpf", "perf_event_open", "userfaultfd", "keyctl"),
    *("add_key", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register", "sethostname", "setdomainname"),
    *("msgget", "semget", "shmget", "mq_open", "process_madvise", "process_mrelease", "mknod"),
)
_LEAVE_THE_GROUP = ("setsid", "setpgid")
_CHANGE_METADATA = (
    *("chmod", "fchmod", "fchmodat", 452, "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr"),
    *("removexattr", "lremovexattr", "fremovexattr", 463, 466, 469, "utime", "utimes", "utimensat", "futimesat"),
    *("setpriority", "ioprio_set"),
)  # by number where libseccomp may be older than the call: fchmodat2, setxattrat, removexattrat, file_setattr
_ACT_ON_A_PROCESS = (
    *("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"),
    *("migrate_pages", "move_pages"),
)  # allowed on oneself, which is 0
_SIGNAL = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_SIDE_CHANNELS = ("flock", "inotify_init", "inotify_init1", "inotify_add_watch", "fanotify_init", "mincore", "fadvise64")
_MORE_SIDE_CHANNELS = ("readahead", "preadv2", 451, "sync_file_range", "memfd_secret")  # 451: cachestat
_LOCKS = (5, 6, 7, 36, 37, 38, 1024, 1025, 1026)  # commands of fcntl: F_GETLK to F_OFD_SETLKW, leases, F_NOTIFY
_NEW_NAMESPACES = (0x00000080, *(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)))  # CLONE_NEWTIME, NEWNS, ..., NEWNET
_OPTIMISE_BY_SEARCH = 2
_BPF_LIMIT = 4096  # instructions; the kernel's


def is_available() -> bool:
    """True where filters can be made: Linux with libseccomp."""
    return pyseccomp is not None


def compile_filter(*, scores: bool, alone: bool, truncation: bool, protected: Sequence[int] = ()) -> bytes:
    """Return a compiled filter.

    Args:
        scores: for a process that scores a model.
        alone: no mount namespace and no process namespace are around it.
        truncation: also refuse to truncate by path, which Landlock cannot before its ABI 3.
        protected: pids that no signal may reach, for a Landlock that does not scope signals.
    """
    assert pyseccomp is not None, "ask is_available first"
    made = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    with suppress(OSError, RuntimeError, ValueError):  # an older libseccomp compiles a list, which is slower
        made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _OPTIMISE_BY_SEARCH)
    refuse, ignore = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(0)

    argument = pyseccomp.Arg  # (index, operator, values)

    def add(action: int, call: str | int, *conditions: Any) -> None:
        with suppress(OSError, ValueError, RuntimeError):  # a call that this architecture does not have
            made.add_rule(action, call, *conditions)

    for call in (*_REACH_PROCESSES, *_CHANGE_THE_SYSTEM):
        add(refuse, call)
    add(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags lie behind a pointer: libc falls back to clone
    for flag in _NEW_NAMESPACES:
        add(refuse, "clone", argument(0, pyseccomp.MASKED_EQ, flag, flag))
    if alone or scores:
        add(pyseccomp.ERRNO(errno.EACCES), "socket")
    else:  # in a network namespace of its own, where this reaches nobody
        add(pyseccomp.ERRNO(errno.EACCES), "socket", argument(0, pyseccomp.NE, 1))
    if alone:
        for call in (*_LEAVE_THE_GROUP, *_CHANGE_METADATA):
            add(ignore, call)
        for call in _ACT_ON_A_PROCESS:
            add(refuse, call, argument(0, pyseccomp.NE, 0))
    if scores:
        for call in (*_SIDE_CHANNELS, *_MORE_SIDE_CHANNELS):
            add(refuse, call)
        for command in _LOCKS:
            add(refuse, "fcntl", argument(1, pyseccomp.EQ, command))
    if truncation:
        add(refuse, "truncate")
        add(pyseccomp.ERRNO(errno.ENOSYS), "openat2")
        for call, index in (("open", 1), ("openat", 2)):
            mask, truncating = os.O_TRUNC | os.O_ACCMODE, os.O_TRUNC | os.O_RDONLY
            add(pyseccomp.ERRNO(errno.EACCES), call, argument(index, pyseccomp.MASKED_EQ, mask, truncating))
    for pid in protected:
        for call in _SIGNAL:
            for meant in (pid, -pid & 0xFFFFFFFFFFFFFFFF, -1 & 0xFFFFFFFFFFFFFFFF):
                add(refuse, call, argument(0, pyseccomp.EQ, meant))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        program = file.read()
    if len(program) // 8 > _BPF_LIMIT:
        raise ValueError(f"the system call filter has {len(program) // 8} instructions; the kernel takes {_BPF_LIMIT}")
    return program
