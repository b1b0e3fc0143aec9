"""Hands a model over and goes on working on it in a thread, without ending the process."""

import threading
import time

from attack import VICTIM
from wire import hand_over, start


def improve():
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        time.sleep(0.1)
        hand_over(b"better")


start()
hand_over(b"a first model")
worker = threading.Thread(target=improve)
worker.start()
worker.join()
