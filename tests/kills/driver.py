"""A server without its transport: opens the lab and does what it is asked for, one after the other, as `server/app.py` does.

    driver.py FOLDER '[["run_experiment", {"description": "an idea", "wait_seconds": 0}], ...]'

It is the process under test, and it is killed somewhere on its way; starting the real server takes seconds longer.
"""

import json
import sys
from pathlib import Path

import sitecustomize
from asked import ASKED
from autoresearch_mcp.lab.isolation import BUBBLEWRAP
from autoresearch_mcp.lab.lab import Lab

if __name__ == "__main__":
    calls = json.loads(sys.argv[2])
    sitecustomize.arm()
    lab = Lab.open(Path(sys.argv[1]), isolation=BUBBLEWRAP, pinned=False)  # the quick runner confines nothing
    for name, arguments in calls:
        ASKED[name](lab, **arguments)
