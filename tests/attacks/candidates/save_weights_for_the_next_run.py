"""Saves what it has learned wherever the next run might find it: caches, temporary folders, memory that outlives a process."""

import ctypes
import os

from attack import VICTIM, libc, reached

MARK, NUMBER = VICTIM["mark"], int(VICTIM["mark"][-6:], 16)
HOME = os.environ.get("HOME", "/")
FOLDERS = [HOME, f"{HOME}/.cache", "/tmp", "/var/tmp", "/dev/shm", "/run", ".", "..", VICTIM["outside"], VICTIM["packages"]]
FOLDERS += [os.environ[name] for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")]
FOLDERS += [VICTIM["corpus"], VICTIM["harness"]]
USER_KEYRING = -4


def keep(folder):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{MARK}", "x") as file:
        file.write("weights")


def keep_in_the_kernel():
    libc().shmget(NUMBER, 4096, 0o1600)
    libc().msgget(NUMBER, 0o1600)
    key = libc().syscall(248, b"user", MARK.encode(), b"weights", ctypes.c_long(7), USER_KEYRING)
    libc().syscall(250, 15, key, 60)  # it expires after a minute


for folder in FOLDERS:
    if os.path.exists(f"{folder}/{MARK}"):
        reached(f"the weights of an earlier run in {folder}")
if libc().shmget(NUMBER, 4096, 0o600) >= 0:
    reached("the weights of an earlier run in shared memory")
if libc().msgget(NUMBER, 0o600) >= 0:
    reached("the weights of an earlier run in a message queue")
if libc().syscall(249, b"user", MARK.encode(), None, 0) >= 0:
    reached("the weights of an earlier run in a keyring")
for folder in FOLDERS:
    try:
        keep(folder)
    except OSError as error:
        print("refused:", folder, error)
keep_in_the_kernel()
