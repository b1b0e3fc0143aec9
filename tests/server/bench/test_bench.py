"""The command as a user starts it: wrong requests end before anything trains, every contender gets a certified number, and who
leaves early leaves no process behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.paths import device_lock_path
from autoresearch_mcp.server.bench.contenders import NAMES
from autoresearch_mcp.server.bench.machine import this_machine

from ...polling import until

COMMAND = (
    "import runpy, signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job, such as a CI's, ignores it
    "runpy.run_module('autoresearch_mcp.server.cli', run_name='__main__', alter_sys=True)\n"
)


def start(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "bench", *options],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bench(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, *options, **environment)
    stdout, stderr = process.communicate(timeout=400)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--corpus", "atlantis"), 2, "no source is known for the corpus 'atlantis'"),
        (("--corpus", "Not A Name"), 2, "corpus name 'Not A Name' is not usable"),
        (("--repeats", "0"), 2, "greater than or equal to 1"),
        (("--seconds", "0.5"), 2, "--seconds 0.5 is not from 1 to 86400"),
        (("--seconds", "nan"), 2, "--seconds nan is not from 1"),
        (("--profile", "tpu"), 2, "no profile 'tpu'; there are: cpu, gpu"),
        (("--only", "theirs"), 2, "no contender 'theirs'; there are: 'ours', 'port', 'same model'"),
        (("--json", "missing/out.json"), 2, "the folder of missing/out.json does not exist"),
        (("--profile", "gpu"), 1, "or measure this CPU: --profile cpu"),
    ],
)
def test_a_wrong_request_is_told_before_anything_trains(
    tmp_path: Path, options: tuple[str, ...], code: int, expected: str
) -> None:
    refused = bench(tmp_path, *options, CUDA_VISIBLE_DEVICES="")
    assert refused.returncode == code, refused.stderr
    assert expected in " ".join(refused.stderr.replace("│", " ").split())
    assert "Traceback" not in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


def test_a_checkout_with_changes_is_told_from_a_clean_one() -> None:
    machine = this_machine(None)
    assert machine.torch
    if machine.commit is not None:
        assert len(machine.commit) == 40
        assert machine.dirty is not None


@pytest.mark.slow
def test_every_contender_gets_a_certified_number_and_nothing_is_left_but_the_files(tiny_corpus: str, tmp_path: Path) -> None:
    done = bench(
        tmp_path,
        *("--corpus", tiny_corpus, "--seconds", "10", "--repeats", "1", "--json", "out.json", "--markdown", "BENCH.md"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((tmp_path / "out.json").read_text())
    runs: dict[str, dict[str, Any]] = {run["contender"]: run for run in measured["runs"] if not run["again"]}
    assert list(runs) == list(NAMES)
    for run in runs.values():
        assert run["outcome"] == "scored", run["reason"]
        assert run["tainted"] is None
        assert 0 < run["val_bpb"] < 8.0
        assert run["steps"] >= 1
        assert run["tokens_per_second"] > 0
        assert run["overhead_seconds"] > run["scoring_seconds"] > 0
        assert run["startup_core_seconds"] > 0
        assert 0 < run["loader_share"] < 0.5
    for name in ("port", "same model"):  # eager, on so short a budget
        assert runs[name]["compile_seconds"] == 0
        assert 0 < runs[name]["optimizer_share"] < 1
    assert runs["ours"]["forward_flops_per_token"] == pytest.approx(runs["same model"]["forward_flops_per_token"], rel=0.02)
    assert "| val_bpb, against the port |" in (tmp_path / "BENCH.md").read_text()
    assert "training tokens/s, against the port" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BENCH.md", "out.json", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []


def working_below(folder: Path) -> list[int]:
    """Return the processes that were started for a run below ``folder``."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if any(str(folder) in argument for argument in process.info["cmdline"] or []):
            found.append(process.info["pid"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_it_leaves_no_process_and_keeps_the_runs_before(
    tiny_corpus: str, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(
        tmp_path, "--corpus", tiny_corpus, "--seconds", "2", "--seconds", "600", "--repeats", "1", "--only", "ours",
        *("--json", "out.json"),
    )  # fmt: skip
    temporary = tmp_path / "tmp"
    try:
        until(lambda: any(temporary.glob("*/runs/ours-600s-1/curve.jsonl")), deadline_seconds=200)
        assert working_below(temporary)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.terminate()  # never leaves ten minutes of training behind
    assert process.returncode == 130, stderr
    assert working_below(temporary) == []
    assert list(temporary.iterdir()) == []
    lock = try_lock(device_lock_path("cpu"))
    assert lock is not None
    os.close(lock)
    assert [run["budget_seconds"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]] == [2.0]
