"""Takes a gigabyte of memory in nameless files, which are mapped by nobody and so belong to no process's size."""

import os
import time

from attack import VICTIM, reached

PIECE = b"x" * (16 << 20)
for _ in range(16):
    file = os.memfd_create(VICTIM["mark"])
    for _ in range(4):
        os.write(file, PIECE)
time.sleep(1.0)
reached("1 GB of memory files")
