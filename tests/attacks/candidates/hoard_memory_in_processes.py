"""Takes a gigabyte and a half of memory, spread over several processes that are each within the limit."""

import os
import time

from attack import VICTIM, reached

for _ in range(6):
    if os.fork() == 0:
        hoard = bytearray(b"x") * (250 << 20)
        time.sleep(5.0)
        os._exit(0)
time.sleep(4.0)
reached("1.5 GB in six processes")
