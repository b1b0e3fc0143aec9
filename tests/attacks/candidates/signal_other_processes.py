"""Stops, ends and interrupts processes that are not its own, by every way to send a signal."""

import fcntl
import os
import signal
import socket

from attack import VICTIM, attempt, system_call

F_SETOWN, F_SETSIG = 8, 10
TGKILL = 234
server, bystander = VICTIM["server"], VICTIM["bystander"]


def by_ownership():
    """The kernel sends the signal when data arrives."""
    ours, theirs = socket.socketpair()
    fcntl.fcntl(ours, F_SETOWN, server)
    fcntl.fcntl(ours, F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
    theirs.send(b"x")


attempt("stopped a process", lambda: os.kill(bystander, signal.SIGSTOP))
attempt("signalled a group", lambda: os.killpg(bystander, signal.SIGSTOP))
attempt("signalled a thread", lambda: system_call(TGKILL, bystander, bystander, int(signal.SIGSTOP)))
attempt("signalled by ownership of a socket", by_ownership)
attempt("signalled by descriptor", lambda: signal.pidfd_send_signal(os.pidfd_open(server), signal.SIGTERM))
attempt("ended a process", lambda: os.kill(server, signal.SIGKILL))
