"""Writes the run's result itself, and ends before the referee has one."""

import json
import os
import time

from attack import VICTIM, attempt
from wire import settings

FORGED = {
    "outcome": "scored",
    "reason": "scored",
    "val_bpb": 0.1,
    "standard_error": 0.0,
    "claimed_bpb": 0.1,
    "audits": 1000,
    "scored_bytes": 1000,
    "scored_tokens": 1000,
    "window_nats": [1.0],
    "total_seconds": 1.0,
}


def forge(folder):
    with open(f"{folder}/.result.forged", "x") as file:
        json.dump(FORGED, file)
    os.rename(f"{folder}/.result.forged", f"{folder}/result.json")


attempt("a result beside the scratch folder", lambda: forge(f"{settings['scratch']}/.."))
attempt("a result in the scratch folder", lambda: forge(settings["scratch"]))
attempt("a result beside train.py", lambda: forge(".."))
attempt(
    "a result in the newest run", lambda: forge(max(os.scandir(VICTIM["runs"]), key=lambda entry: entry.stat().st_mtime).path)
)
time.sleep(3.0)
