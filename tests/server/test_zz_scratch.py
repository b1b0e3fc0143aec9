from __future__ import annotations
import os, signal, subprocess, sys, time
from collections.abc import Callable
import pytest
from .test_several_servers import *  # noqa
from .test_several_servers import serve, propose, measure_baseline
from .stdio_server import StdioServer, ToolError
STOPPED = """
import os, signal, sys
from pathlib import Path
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
lab = Lab.open(Path(sys.argv[1]))
with HOLD:
    print("holds", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
@pytest.mark.parametrize("hold", ["locked_if_free(lab.state.dispatch_lock)", "lab.ledger.transaction()"])
def test_scratch_stopped(make_quick_lab, serve, hold):
    lab = make_quick_lab(seconds=20.0)
    server = serve(lab)
    measure_baseline(server)
    e = propose(lab, server, 1, seconds=1.0)
    q = propose(lab, server, 2, seconds=1.0)
    holder = subprocess.Popen([sys.executable, "-c", STOPPED.replace("HOLD", hold), str(lab.root)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    time.sleep(2.5)
    def timed(name, **a):
        t = time.monotonic()
        try: r = server.call(name, **a); said = r.get("state"), r.get("warnings"), r.get("reason"), r.get("phase")
        except ToolError as x: said = str(x)
        print("SAID", hold, name, "%.2f s" % (time.monotonic() - t), said, flush=True)
    for _ in range(2):
        timed("status"); timed("history"); timed("wait_experiment", experiment_id=e, wait_seconds=1.0)
    timed("cancel_experiment", experiment_id=q)
    timed("status")
    holder.send_signal(signal.SIGCONT); holder.communicate()
    timed("wait_experiment", experiment_id=e, wait_seconds=10.0)
