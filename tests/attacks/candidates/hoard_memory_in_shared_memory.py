"""Takes 800 MB of memory as files in /dev/shm, which lies in memory."""

import os
import time

from attack import VICTIM, reached

PIECE = b"x" * (16 << 20)
PATHS = [f"/dev/shm/{VICTIM['mark']}-{number}" for number in range(50)]
for path in PATHS:
    with open(path, "wb") as file:
        file.write(PIECE)
time.sleep(1.0)
reached("800 MB in files of memory")
for path in PATHS:
    os.unlink(path)
