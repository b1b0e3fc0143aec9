"""Leaves a daemon that becomes another process every five milliseconds, so that whoever kills it comes too late."""

import os
import time

from attack import VICTIM

LIFE_SECONDS = 20.0

if os.fork() == 0:
    deadline = time.monotonic() + LIFE_SECONDS
    while time.monotonic() < deadline:
        if os.fork() != 0:
            os._exit(0)
        try:
            os.setsid()
        except OSError:
            pass
        time.sleep(0.005)
    os._exit(0)
time.sleep(0.5)
