"""Landlock: a Linux process gives up the files that it does not need, for itself and all it will ever start.

Needs no privilege. Runs inside a sandbox, by path too, so it imports nothing but the standard library; the numbers are those
of linux/landlock.h. The kernel answers which version (ABI) it has: 1 files (5.13), 3 truncation (6.2), 4 TCP (6.7), 6 signals
and abstract sockets to outside (6.12). Does not cover: metadata (chmod, utime) and other kinds of sockets; seccomp does.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

SCOPES_SIGNALS = 6  # the first version that keeps signals to its own kind

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_RIGHTS = (1 << 13) - 1  # of ABI 1
_NETWORK_RIGHTS = 0b11  # bind and connect TCP
_SCOPES = 0b11  # abstract UNIX sockets and signals
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the rights that a rule on a file may name


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What stays reachable; whatever lies below a path is meant, too. Paths that do not exist are passed over."""

    readable: tuple[str, ...]  # and executable
    listable: tuple[str, ...] = ()  # only the names
    writable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # device nodes: read, write, ioctl


def abi() -> int:
    """Return the version of Landlock that this kernel has; 0: none."""
    try:
        return _system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def restrict(access: Access) -> int:
    """Confine this process to ``access``, and its signals and abstract sockets to its own kind; return the ABI.

    Where TCP can be denied it is. Raises `OSError` where the kernel has no Landlock: nothing is confined then.
    """
    version = abi()
    files = _file_rights(version)
    network = _NETWORK_RIGHTS if version >= 4 else 0
    attributes = struct.pack("=QQQ", files, network, _SCOPES)[: 24 if version >= SCOPES_SIGNALS else 16 if version >= 4 else 8]
    ruleset = _system_call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for paths, rights in (
            (access.readable, _READ),
            (access.listable, _READ_DIR),
            (access.writable, files & ~_IOCTL_DEV),
            (access.devices, _READ_FILE | _WRITE_FILE | _READ_DIR | _IOCTL_DEV),
        ):
            _allow(ruleset, paths, rights & files)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _system_call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return version


def _file_rights(version: int) -> int:
    rights = _FIRST_RIGHTS
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if version >= since:
            rights |= right
    return rights


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            allowed = rights if stat.S_ISDIR(os.fstat(fd).st_mode) else rights & _FOR_FILES
            if allowed:
                beneath = struct.pack("=Qi", allowed, fd)
                _system_call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), beneath, ctypes.c_uint32(0))
        finally:
            os.close(fd)


def _system_call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
