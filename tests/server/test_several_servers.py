"""Every window of a client starts a server of its own: several serve one lab, and any of them may end at any moment."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import psutil
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import Verdict

from .. import polling
from .stdio_server import StdioServer, ToolError

pytestmark = pytest.mark.slow

MakeLab = Callable[..., Lab]
until = partial(polling.until, deadline_seconds=60.0)


@pytest.fixture
def serve() -> Iterator[Callable[[Lab], StdioServer]]:
    """Return a function that starts a server of a lab, as one more window does; it is connected and lists its tools."""
    servers: list[StdioServer] = []

    def start(lab: Lab) -> StdioServer:
        server = StdioServer(lab.root)
        servers.append(server)
        server.connect()
        assert "run_experiment" in server.tools()
        return server

    yield start
    for server in servers:
        server.kill()


def propose(lab: Lab, server: StdioServer, number: int, *, seconds: float) -> str:
    """Run an idea that is worse than the baseline and takes some seconds; return its id without waiting for it."""
    source = re.sub(r"# quick:.*", f"# quick: val_bpb={2.0 + number / 100} seconds={seconds}", lab.workspace.train.read_text())
    lab.workspace.train.write_text(source)
    return server.call("run_experiment", description=f"idea {number}", wait_seconds=0.0)["experiment"]["id"]


def measure_baseline(server: StdioServer) -> None:
    assert server.call("run_experiment", description="baseline", wait_seconds=30.0)["state"] == "finished"


def require_one_history(lab: Lab) -> None:
    """Every run started once and ended once, the device had one at a time, and the record is whole."""
    for kind in ("run_started", "run_finished"):
        counted = Counter(event.body["id"] for event in lab.ledger.events_of(kind))
        assert set(counted.values()) == {1}, counted
    assert lab.ledger.events_of("run_retried") == []
    events = lab.executor.events()
    spans = []
    for run_id in {event.run_id for event in events}:
        at = {event.kind: event.at for event in events if event.run_id == run_id}
        kinds = [event.kind for event in events if event.run_id == run_id]
        assert kinds == ["queued", "started", "training", "scoring", "terminal"]
        spans.append((at["started"], at["scoring"]))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(sorted(spans)))
    assert lab.ledger.verify() == []


def test_a_window_that_nobody_used_yet_goes_on_when_the_server_of_another_is_killed(
    make_quick_lab: MakeLab, serve: Callable[[Lab], StdioServer]
) -> None:
    lab = make_quick_lab(seconds=20.0)
    first = serve(lab)
    measure_baseline(first)
    running, *queued = [propose(lab, first, number, seconds=2.0 if number == 1 else 0.05) for number in range(1, 5)]
    serve(lab)
    until(lambda: lab.executor.progress(f"{running}.1"))
    first.process.kill()
    killed_at = time.time()
    until(lambda: lab.ledger.count_experiments("verdict IS NULL") == 0)
    started = [event.at for event in lab.ledger.events_of("run_started") if event.body["id"] == f"{queued[0]}.1"]
    assert started[0] - killed_at < 15.0
    require_one_history(lab)


@pytest.mark.parametrize("how", ["its input is closed", "SIGTERM", "SIGINT"])
def test_a_training_goes_on_when_its_server_is_asked_to_end(
    make_quick_lab: MakeLab, serve: Callable[[Lab], StdioServer], how: str
) -> None:
    """A signal goes to the whole process group, as from some clients and from a terminal."""
    lab = make_quick_lab(seconds=20.0)
    server = serve(lab)
    train = lab.workspace.train
    train.write_text(train.read_text().replace("# quick:", "# quick: seconds=15.0"))
    server.call("start_session", tag="new")
    experiment = server.call("run_experiment", description="baseline", wait_seconds=0.0)["experiment"]["id"]
    until(lambda: lab.executor.progress(f"{experiment}.1"))
    if how == "its input is closed":
        assert server.hang_up() == 0
    else:
        os.killpg(server.process.pid, signal.Signals[how])
        assert server.process.wait(20.0) == -signal.Signals[how]
    assert lab.executor.result(f"{experiment}.1") is None  # a dead one would be lost
    experiments.cancel(lab, experiment)
    assert wait(lab, experiment, 30.0).verdict is Verdict.CANCELLED
    assert lab.ledger.runs(experiment)[0].attempt == 1
    assert lab.ledger.verify() == []


# A client with a real connection to a server, that asks for a run and then does nothing.
CLIENT = """
import sys
from pathlib import Path
import anyio
from autoresearch_mcp.server.autopilot.client import with_server
from autoresearch_mcp.tools.results import ExperimentAnswer

async def work(client):
    await client.call("run_experiment", ExperimentAnswer, description="baseline", wait_seconds=0.0)
    await anyio.sleep_forever()

anyio.run(with_server, Path(sys.argv[1]), work)
"""


def test_a_real_run_ends_with_its_result_when_every_descendant_of_the_client_is_killed(
    lab: Lab, serve: Callable[[Lab], StdioServer]
) -> None:
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(lab.root)])
    try:
        until(lambda: lab.ledger.experiments())
        (experiment,) = lab.ledger.experiments()
        run_id = f"{experiment.id}.1"
        until(lambda: (progress := lab.executor.progress(run_id)) and progress.phase == "training")
        descendants = psutil.Process(client.pid).children(recursive=True)
        assert any("serve" in process.cmdline() for process in descendants)
        for process in descendants:
            process.kill()
    finally:
        client.kill()
        client.wait()
    result = until(lambda: lab.executor.result(run_id))
    assert result.val_bpb is not None, result.reason
    assert lab.ledger.runs(experiment.id)[0].result is None
    answer = serve(lab).call("wait_experiment", experiment_id=experiment.id, wait_seconds=20.0)
    assert answer["experiment"]["verdict"] == Verdict.IMPROVED
    require_one_history(lab)


def test_five_servers_that_ask_all_the_time_make_one_history(
    make_quick_lab: MakeLab, serve: Callable[[Lab], StdioServer]
) -> None:
    lab = make_quick_lab(seconds=20.0)
    turn = threading.Lock()  # they share one train.py: each edits it and has it recorded before the next

    def research(number: int) -> tuple[StdioServer, list[str]]:
        server = servers[number]
        mine = []
        for idea in range(3):
            with turn:
                mine.append(propose(lab, server, 10 * number + idea + 1, seconds=0.05))
            server.call("status")
        for experiment in mine:
            while server.call("wait_experiment", experiment_id=experiment, wait_seconds=1.0)["state"] != "finished":
                server.call("history")
        return server, mine

    with ThreadPoolExecutor(5) as pool:
        servers = list(pool.map(lambda _: serve(lab), range(5)))
        measure_baseline(servers[0])
        done = list(pool.map(research, range(5)))
    assert len({experiment for _, mine in done for experiment in mine}) == 15
    told = [server.call("history", sort="oldest", per_page=25) for server, _ in done]
    assert all(answer == told[0] for answer in told)
    require_one_history(lab)


# A process of this user that is stopped, as by Ctrl-Z, at the worst moment.
STOPPED = """
import os, signal, sys
from pathlib import Path
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
lab = Lab.open(Path(sys.argv[1]))
with {}:
    print("holds it", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextmanager
def stopped_process(lab: Lab, holding: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", STOPPED.format(holding), str(lab.root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_stopped_process_that_holds_the_queue_is_named_and_the_others_go_on_when_it_is_ended(
    make_quick_lab: MakeLab, serve: Callable[[Lab], StdioServer]
) -> None:
    lab = make_quick_lab()
    server = serve(lab)
    measure_baseline(server)
    with stopped_process(lab, "locked_if_free(lab.state.dispatch_lock)") as stopped:
        experiment = propose(lab, server, 1, seconds=0.05)
        told = next(warning for warning in server.call("status")["warnings"] if "stopped" in warning)
        assert f"kill -KILL {stopped.pid}" in told
        began = time.monotonic()
        with pytest.raises(ToolError, match=f"Process {stopped.pid} .* cancel_experiment again"):
            server.call("cancel_experiment", experiment_id=experiment)
        assert time.monotonic() - began < 10.0
        assert server.call("wait_experiment", experiment_id=experiment, wait_seconds=0.5)["state"] == "queued"
    assert server.call("wait_experiment", experiment_id=experiment, wait_seconds=30.0)["state"] == "finished"
    require_one_history(lab)


def test_a_stopped_process_that_writes_the_record_does_not_keep_others_from_reading_it(
    make_quick_lab: MakeLab, serve: Callable[[Lab], StdioServer]
) -> None:
    lab = make_quick_lab(seconds=60.0)
    server = serve(lab)
    measure_baseline(server)
    experiment = propose(lab, server, 1, seconds=60.0)
    with stopped_process(lab, "lab.ledger.transaction()"):
        lab.executor.cancel(f"{experiment}.1")
        until(lambda: lab.executor.result(f"{experiment}.1"))  # has ended, and cannot be recorded
        began = time.monotonic()
        for tool in ("status", "history", "read_program"):
            server.call(tool)
        assert server.call("wait_experiment", experiment_id=experiment, wait_seconds=1.0)["state"] != "finished"
        assert time.monotonic() - began < 20.0
    assert server.call("wait_experiment", experiment_id=experiment, wait_seconds=30.0)["state"] == "finished"
    assert lab.ledger.verify() == []
