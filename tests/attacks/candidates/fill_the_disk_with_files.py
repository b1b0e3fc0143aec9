"""Writes 200 MB in files that are each within the limit, wherever it may write."""

import os
import time

from attack import VICTIM, reached

PIECE = b"x" * (8 << 20)
FOLDERS = [os.environ["HOME"], os.environ["TMPDIR"], "/tmp", "/var/tmp", "/dev/shm"]
written = 0
for number in range(25):
    folder = FOLDERS[number % len(FOLDERS)]
    try:
        with open(f"{folder}/{VICTIM['mark']}-{number}", "wb") as file:
            file.write(PIECE)
        written += len(PIECE)
    except OSError as error:
        print(f"refused: {folder}: {error}")
time.sleep(1.0)
if written > 100 << 20:
    reached(f"{written >> 20} MB")
