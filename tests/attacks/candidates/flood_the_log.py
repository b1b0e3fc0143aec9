"""Prints 25 MB between a first and a last line."""

import sys

from attack import VICTIM

print("the first line")
for _ in range(400_000):
    print("x" * 60)
sys.exit("the last line")
