"""Takes a gigabyte and a half of memory in one process."""

import time

from attack import VICTIM, reached

hoard = [bytearray(b"x") * (64 << 20) for _ in range(24)]
time.sleep(1.0)
reached("1.5 GB")
