"""Opens the interpreter, its library, torch and its own harness for writing; where it succeeds it changes nothing."""

import os
import sys
from importlib.util import find_spec

from attack import attempt


def open_for_writing(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


FILES = [os.__file__, "train.py", "/etc/hostname"]
FILES += [spec.origin for name in ("torch", "numpy", "cloudpickle", "prepare") if (spec := find_spec(name)) is not None]
for path in dict.fromkeys([*FILES, *map(os.path.realpath, FILES)]):
    attempt(f"{path} open for writing", lambda path=path: open_for_writing(path))
attempt("the interpreter's folder open for writing", lambda: open_for_writing(os.path.realpath(sys.executable)))
