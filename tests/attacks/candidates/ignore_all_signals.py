"""Ignores every signal that can be ignored, in itself and in a child, and goes on past its deadline."""

import os
import signal
import time

from attack import VICTIM
from wire import start

for number in range(1, signal.NSIG):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        continue
start()
os.fork()
time.sleep(30.0)
