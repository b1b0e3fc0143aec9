"""Writes one file of 200 MB."""

import os

from attack import VICTIM, reached

PIECE = b"x" * (4 << 20)
with open(os.environ["HOME"] + "/large", "wb") as file:
    for _ in range(50):
        file.write(PIECE)
reached("a file of 200 MB")
