"""Stops every clock that it can reach, the referee's page too, and goes on past its deadline."""

import os
import struct
import time

from attack import attempt
from wire import start

real = time.monotonic
time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
_, clock = start()


def forge():
    page = os.open(f"/proc/self/fd/{clock}", os.O_RDWR)
    return os.pwrite(page, struct.pack("<d", 1e9), 0)


deadline = real() + 30.0
attempt("the clock's page", forge)
while real() < deadline:
    pass
