"""Lets the bulk pass signal to the audit by small things: a lock, a name, a socket, shared memory, a queue, a key."""

import ctypes
import fcntl
import os
import socket
import sys
import time

from attack import VICTIM, libc
from honest import Bigram, evaluate_bpb, logits, tokenizer, torch

MARK, NUMBER = VICTIM["mark"], int(VICTIM["mark"][-6:], 16)
LIBRARY = torch.__file__  # both scoring processes can read it
KEY_OF_USER = -4  # KEY_SPEC_USER_KEYRING
kept = []


def is_audit():
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "audit":
            return True
        frame = frame.f_back
    return False


def say():
    """Leave a sign by each way."""
    for way in (say_by_lock, say_by_name, say_by_socket, say_by_memory, say_by_queue, say_by_key):
        try:
            way()
        except OSError:
            continue


def say_by_lock():
    kept.append(open(LIBRARY, "rb"))
    fcntl.flock(kept[-1], fcntl.LOCK_EX)


def say_by_name():
    libc().prctl(15, f"{MARK}!".encode(), 0, 0, 0)


def say_by_socket():
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(f"\0{MARK}")
    kept[-1].listen()


def say_by_memory():
    libc().shmget(NUMBER, 4096, 0o1600)


def say_by_queue():
    libc().msgget(NUMBER, 0o1600)


def say_by_key():
    key = libc().syscall(248, b"user", MARK.encode(), b"x", ctypes.c_long(1), KEY_OF_USER)
    libc().syscall(250, 15, key, 60)  # it expires after a minute


def heard():
    """Return whether a sign is there, by whichever way."""
    for way in (heard_by_lock, heard_by_name, heard_by_socket, heard_in_the_kernel):
        try:
            if way():
                return True
        except OSError:
            continue
    return False


def heard_by_lock():
    with open(LIBRARY, "rb") as library:
        try:
            fcntl.flock(library, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def heard_by_name():
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/comm") as file:
                if f"{MARK}!" in file.read():
                    return True
        except OSError:
            continue
    return False


def heard_by_socket():
    socket.socket(socket.AF_UNIX).connect(f"\0{MARK}")
    return True


def heard_in_the_kernel():
    found = libc().shmget(NUMBER, 4096, 0o600), libc().msgget(NUMBER, 0o600)
    return max(*found, libc().syscall(249, b"user", MARK.encode(), None, 0)) >= 0


class Whisper(Bigram):
    asked = False

    def forward(self, idx):
        if not self.asked:
            self.asked = True
            if not is_audit():
                say()
                time.sleep(2.0)  # the audit may work beside it
            else:
                time.sleep(1.0)
                if heard():
                    raise RuntimeError("a sign has arrived")
        return self.logits[idx]


evaluate_bpb(Whisper(logits), tokenizer, 64)
