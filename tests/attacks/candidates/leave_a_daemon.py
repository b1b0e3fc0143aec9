"""Leaves daemons: two forks, a session of their own, another folder, every signal ignored; one has no environment either."""

import os
import signal
import sys
import time

from attack import VICTIM

LIFE_SECONDS = 60
NAMED = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{VICTIM['mark']}', 0, 0, 0); time.sleep({LIFE_SECONDS})"

for without_environment in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if without_environment:
                os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", NAMED], {})
            time.sleep(LIFE_SECONDS)
        os._exit(0)
time.sleep(0.5)
