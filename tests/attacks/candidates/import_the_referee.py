"""Imports the lab and the referee from inside, and reads where the lab's record is."""

import importlib
import sys

from attack import VICTIM, attempt

sys.path += [VICTIM["harness"], f"{VICTIM['harness']}/..", VICTIM["checkout"], f"{VICTIM['checkout']}/.."]
for name in ("autoresearch_mcp.lab.lab", "autoresearch_mcp.lab.referee.scorer", "lab.referee.scorer", "lab.ledger"):
    attempt(f"the module {name}", lambda name=name: importlib.import_module(name).__name__)
attempt("the lab's record", lambda: open(VICTIM["ledger"], "rb").close())
