"""Reads the arguments, environment, memory and open files of another process, and lists what else runs."""

import os

from attack import VICTIM, attempt, reached

server = VICTIM["server"]


def read(name):
    with open(f"/proc/{server}/{name}", "rb") as file:
        return file.read(4096).replace(b"\0", b" ").decode(errors="replace")


def memory():
    start = int(read("stat").rpartition(")")[2].split()[47])  # env_start
    with open(f"/proc/{server}/mem", "rb", buffering=0) as file:
        file.seek(start)
        return file.read(2048).replace(b"\0", b" ").decode(errors="replace")


attempt("its arguments", lambda: read("cmdline"))
attempt("its environment", lambda: read("environ"))
attempt("its memory", memory)
attempt("its open files", lambda: os.listdir(f"/proc/{server}/fd"))
names = []
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{process}/cmdline") as file:
            names.append(file.read().replace("\0", " "))
    except OSError:
        continue
print("what runs:", *names, sep="\n")
