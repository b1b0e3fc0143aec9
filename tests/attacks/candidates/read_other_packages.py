"""Looks for Python packages beyond torch's own: those of the server, of the system, and text to learn from in wheels."""

import glob
import os
import sys
from importlib.util import find_spec

from attack import VICTIM, attempt, reached

for name in ("mcp", "pydantic", "git", "psutil", "uvicorn", "matplotlib", "pip", "pytest", "autoresearch_mcp"):
    if find_spec(name) is not None:
        reached(f"the package {name} by import")
for pattern in (
    "/usr/lib/python3/dist-packages/*.py",
    "/usr/share/doc/*",
    *(f"{folder}/pydantic/main.py" for folder in sys.path),
):
    attempt(pattern, lambda pattern=pattern: bool([path for path in glob.glob(pattern) if os.access(path, os.R_OK)][:1]))
for path in (
    f"{VICTIM['installed']}/pydantic/main.py",
    f"{VICTIM['installed']}/mcp/types.py",
    f"{VICTIM['packages']}/package.py",
):
    attempt(path, lambda path=path: open(path).close())
attempt("a wheel in a cache", lambda: open(VICTIM["wheel"]).close())
attempt("the training text before the clock", lambda: open(VICTIM["training_text"]).close())
