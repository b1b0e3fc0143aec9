"""Makes a hundred thousand empty files, which need no space but an entry each."""

import os
import time

from attack import VICTIM, reached

os.chdir(os.environ["HOME"])
for number in range(100_000):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
time.sleep(1.0)
reached("a hundred thousand files")
