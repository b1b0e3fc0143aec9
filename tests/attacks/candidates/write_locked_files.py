"""Appends to, truncates and changes the mode of files that belong to others: the lab's, the harness, the record, a package."""

import os
import stat

from attack import VICTIM, attempt


def append(path):
    with open(path, "a") as file:
        file.write("# changed\n")


def truncate_by_opening(path):
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))
    return os.path.getsize(path) == 0


def change_mode(path):
    before = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, before ^ stat.S_IWOTH)
    return stat.S_IMODE(os.stat(path).st_mode) != before


for path in VICTIM["locked"]:
    attempt(f"appended to {path}", lambda path=path: append(path))
    attempt(f"changed the mode of {path}", lambda path=path: change_mode(path))
    attempt(f"changed the times of {path}", lambda path=path: os.utime(path, (1, 1)))
    attempt(f"shortened {path}", lambda path=path: os.truncate(path, 1))
    attempt(f"emptied {path}", lambda path=path: truncate_by_opening(path))
