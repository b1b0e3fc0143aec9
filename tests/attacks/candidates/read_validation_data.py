"""Reads the validation text by its path, through /proc of a process that has it open, and the secret that draws its windows."""

import hashlib
import os

from attack import VICTIM, attempt


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(4096)).hexdigest()


text, server = VICTIM["validation_text"], VICTIM["server"]
attempt("the validation text by path", lambda: digest(text))
attempt("the validation text below another process's root", lambda: digest(f"/proc/{server}/root{text}"))
attempt("the validation text in another process's descriptor", lambda: digest(f"/proc/{server}/fd/{VICTIM['server_fd']}"))
for descriptor in os.listdir("/proc/self/fd"):
    attempt(
        f"inherited descriptor {descriptor}", lambda descriptor=descriptor: text in os.readlink(f"/proc/self/fd/{descriptor}")
    )
with open(VICTIM["validation_secret"], "rb") as file:
    print(file.read().hex())
