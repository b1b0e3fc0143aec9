"""Leaves a process that is stopped, in a session of its own, and so does not notice that its parent ends."""

import os
import signal
import time

from attack import VICTIM

if os.fork() == 0:
    os.setsid()
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
time.sleep(0.5)
