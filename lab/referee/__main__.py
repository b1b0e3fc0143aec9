"""The process that is started for a run: it detaches itself, then becomes the runner. Run by path, with the run folder.

Detached twice: a new session, and a parent that is gone, so that a client that kills its whole process tree does not find
it. Nothing heavy is imported before that, so the server waits a few hundredths of a second.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    run_folder = Path(sys.argv[1])
    lock_fd = int(sys.argv[2])
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.set_inheritable(lock_fd, False)
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # the pinned package, before any installed one
    from autoresearch_mcp.lab.referee.runner import run

    run(run_folder)


if __name__ == "__main__":
    main()
