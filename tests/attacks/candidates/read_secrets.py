"""Reads a key in the user's home folder, lists that folder, and reads the machine's password hashes."""

import hashlib
import os

from attack import VICTIM, attempt


def read(path):
    with open(path) as file:
        return file.read()


def digest(path):
    return hashlib.sha256(read(path).encode()).hexdigest()


attempt("a private key", lambda: read(VICTIM["private_key"]))
attempt("the names in the home folder", lambda: ", ".join(os.listdir(VICTIM["home"])))
attempt("/etc/shadow", lambda: digest("/etc/shadow"))
attempt("the lab's record", lambda: digest(VICTIM["ledger"]))
