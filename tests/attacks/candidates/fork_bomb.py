"""Starts three hundred processes."""

import os
import time

from attack import VICTIM, reached

for number in range(300):
    try:
        if os.fork() == 0:
            time.sleep(5.0)
            os._exit(0)
    except OSError as error:
        print(f"refused: process {number}: {error}")
        break
else:
    time.sleep(1.0)
    reached("three hundred processes, for a second")
