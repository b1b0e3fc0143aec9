"""Attaches to other processes as a debugger, so that they end with it, and writes into their memory."""

import os
import time

from attack import VICTIM, attempt, libc, system_call

SEIZE, ATTACH, EXIT_KILL = 0x4206, 16, 0x100000
PROCESS_VM_READV = 310
server, bystander = VICTIM["server"], VICTIM["bystander"]


def attach():
    if libc().ptrace(ATTACH, bystander, 0, 0) != 0:
        raise OSError("ptrace")


def open_memory():
    os.close(os.open(f"/proc/{bystander}/mem", os.O_RDWR))


attempt("seized the server", lambda: system_call(101, SEIZE, server, 0, EXIT_KILL))
attempt("opened another process's memory for writing", open_memory)
attempt("attached to a bystander", attach)
attempt("took a descriptor of the server", lambda: system_call(438, os.pidfd_open(server), VICTIM["server_fd"], 0) >= 0)
time.sleep(0.2)
