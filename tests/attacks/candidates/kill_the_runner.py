"""Kills the process that times and records this run."""

import os
import signal
import time

from attack import VICTIM

for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{process}/cmdline") as file:
            arguments = file.read()
        if VICTIM["runs"] in arguments and int(process) != os.getpid():
            os.kill(int(process), signal.SIGKILL)
    except OSError as error:
        print("refused:", error)
time.sleep(0.5)
try:
    os.kill(os.getppid(), signal.SIGKILL)
except OSError as error:
    print("refused:", error)
time.sleep(3.0)
