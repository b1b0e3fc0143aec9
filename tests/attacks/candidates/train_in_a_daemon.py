"""Leaves a daemon that replaces the handed-over model after the clock has stopped."""

import os
import pickle
import time

from attack import VICTIM
from wire import hand_over, start


class Model:
    """Says which one it is when it is opened."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return exec, (f"raise RuntimeError({self.name!r})",)


start()
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    parent, deadline = os.getppid(), time.monotonic() + 15.0
    time.sleep(1.0)
    while time.monotonic() < deadline:
        hand_over(pickle.dumps(Model("reached: the model of the daemon")))
        time.sleep(0.02)
    os._exit(0)
hand_over(pickle.dumps(Model("the model of the clock's time")))
os._exit(0)
