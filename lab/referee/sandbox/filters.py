"""The system call filter of a sandboxed process, compiled by libseccomp.

What is refused: reaching other processes (ptrace, their memory, pidfd), sockets, namespaces and mounts, io_uring, kernel
keys, BPF, System V and POSIX queues. Changes of metadata answer "done" and do nothing: a descriptor that was handed over, such
as that of the tokens, would let its owner change them, however it is mounted. On a CPU also memory that no process shows as
its own: files in memory, and what is mapped both shared and anonymous. Where no process namespace helps, also changes of
process groups, which do nothing, and acts on other processes.
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
    *("memfd_secret", "vmsplice"),
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
_MORE_SIDE_CHANNELS = ("readahead", "preadv2", 451, "sync_file_range")  # 451: cachestat
_CHANGE_FILE_FLAGS = (0x40086602, 0x40046602, 0x40087602, 0x40047602, 0x401C5820, 0x40806685)  # FS_IOC_SET*, ENABLE_VERITY
_TYPE_INTO_TERMINALS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_WATCH_FILES = (1024, 1026)  # commands of fcntl: F_SETLEASE, F_NOTIFY
_KIND_OF_MAPPING, _SHARED_AND_ANONYMOUS = 0x2F, 0x21
_PARENT_DEATH_SIGNAL, _KILL = 1, 9
_SOCKET_LEVEL, _BUFFER_SIZES = 1, (7, 8, 32, 33)  # SOL_SOCKET; SO_SNDBUF, SO_RCVBUF, and FORCE
_LOCKS = (5, 6, 7, 36, 37, 38, 1024, 1025, 1026)  # commands of fcntl: F_GETLK to F_OFD_SETLKW, leases, F_NOTIFY
_NEW_NAMESPACES = (0x00000080, *(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)))  # CLONE_NEWTIME, NEWNS, ..., NEWNET
_CLONE_THREAD = 0x00010000
_INT = 0xFFFFFFFF  # the kernel looks at these bits of an int and a filter at all 64, so the others must not count
_OPTIMISE_BY_SEARCH = 2
_BPF_LIMIT = 4096  # instructions; the kernel's


def is_available() -> bool:
    """True where filters can be made: Linux with libseccomp."""
    return pyseccomp is not None


def compile_filter(
    *, scores: bool, alone: bool, counted: bool, truncation: bool = False, protected: Sequence[int] = ()
) -> bytes:
    """Return a compiled filter.

    Args:
        scores: for a process that scores a model. It parts first and leaves its group then; see `compile_pin`.
        counted: refuse memory that is no process's own. CUDA needs files in memory, so not on a GPU.
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
    for call in _CHANGE_METADATA:
        add(ignore, call)
    for request in (*_CHANGE_FILE_FLAGS, *_TYPE_INTO_TERMINALS):
        add(refuse, "ioctl", argument(1, pyseccomp.MASKED_EQ, _INT, request))
    for command in _WATCH_FILES:
        add(refuse, "fcntl", argument(1, pyseccomp.MASKED_EQ, _INT, command))
    for option in _BUFFER_SIZES:  # what waits in a socket is nobody's memory
        level = argument(1, pyseccomp.MASKED_EQ, _INT, _SOCKET_LEVEL)
        add(ignore, "setsockopt", level, argument(2, pyseccomp.MASKED_EQ, _INT, option))
    # It dies with its parent, whatever it would rather; a scoring process asks for just that.
    death = argument(0, pyseccomp.MASKED_EQ, _INT, _PARENT_DEATH_SIGNAL)
    add(ignore, "prctl", death, argument(1, pyseccomp.NE, _KILL))
    if counted:
        add(pyseccomp.ERRNO(errno.ENOSYS), "memfd_create")
        add(refuse, "mmap", argument(3, pyseccomp.MASKED_EQ, _KIND_OF_MAPPING, _SHARED_AND_ANONYMOUS))
    if alone:
        for call in () if scores else _LEAVE_THE_GROUP:
            add(ignore, call)
        for call in _ACT_ON_A_PROCESS:
            add(refuse, call, argument(0, pyseccomp.NE, 0))
    if scores:
        for call in (*_SIDE_CHANNELS, *_MORE_SIDE_CHANNELS):
            add(refuse, call)
        for command in _LOCKS:
            add(refuse, "fcntl", argument(1, pyseccomp.MASKED_EQ, _INT, command))
    if truncation:
        add(refuse, "truncate")
        add(pyseccomp.ERRNO(errno.ENOSYS), "openat2")
        for call, index in (("open", 1), ("openat", 2)):
            mask, truncating = os.O_TRUNC | os.O_ACCMODE, os.O_TRUNC | os.O_RDONLY
            add(pyseccomp.ERRNO(errno.EACCES), call, argument(index, pyseccomp.MASKED_EQ, mask, truncating))
    for pid in protected:
        for call in _SIGNAL:
            for meant in (pid, -pid, -1):
                add(refuse, call, argument(0, pyseccomp.MASKED_EQ, _INT, meant & _INT))
    return _compiled(made)


def compile_pin(*, may_fork: bool) -> bytes:
    """Return a compiled filter for a scoring process that leads its own group by now: all it starts stays in that group.

    Unless it ``may_fork``, as a compiler on a GPU wants, it has threads and no children.
    """
    assert pyseccomp is not None, "ask is_available first"
    made = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for call in _LEAVE_THE_GROUP:
        made.add_rule(pyseccomp.ERRNO(0), call)
    if not may_fork:
        refuse = pyseccomp.ERRNO(errno.EPERM)
        made.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
        for call in ("fork", "vfork"):
            with suppress(OSError, ValueError, RuntimeError):  # not on every architecture
                made.add_rule(refuse, call)
    return _compiled(made)


def _compiled(made: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        program = file.read()
    if len(program) // 8 > _BPF_LIMIT:
        raise ValueError(f"the system call filter has {len(program) // 8} instructions; the kernel takes {_BPF_LIMIT}")
    return program
