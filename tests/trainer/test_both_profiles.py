"""The whole of train.py beside a harness that has no referee: sizes of both profiles, memories of several sizes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .loading import edited

HARNESS = """\
import os, sys, time
import torch

DEVICE, SEED, MAX_SEQ_LEN, TIME_BUDGET = "cpu", 1, 32, 3.0
PROFILE, MEMORY_BYTES = os.environ["PROFILE"], int(os.environ["MEMORY_BYTES"])
reported, weights, end = [], None, None


class Tokenizer:
    vocab_size = 512
    load = classmethod(lambda cls, size: cls())


def synthetic_batch(rows, length):
    return torch.randint(256, (2, rows, length)).unbind()


def rehearse(model):
    global weights
    weights = {name: value.clone() for name, value in model.state_dict().items()}


def make_dataloader(tokenizer, rows, length, split):
    global end
    end = time.monotonic() + TIME_BUDGET
    tokens = torch.arange(rows * length + 1) % 7  # easily learned
    while True:
        yield tokens[:-1].view(rows, length), tokens[1:].view(rows, length), 1


def seconds_left():
    return TIME_BUDGET if end is None else end - time.monotonic()


def report(step, **metrics):
    if step > 0:  # before the clock: what the warm-up measured
        reported.append((step, metrics["loss"]))


def evaluate_bpb(model, tokenizer, batch_size):
    print(f"late by {time.monotonic() - end:.3f} s; reported {len(reported)}; scored by {batch_size} rows")
    print(f"loss from {reported[0][1]:.4f} to {reported[-1][1]:.4f}")
    fresh = all((p.abs().max() == 0) == name.endswith(("out.weight", "down.weight", "value_gate.weight", "shift"))
                for name, p in weights.items() if name.startswith("blocks"))
    print("fresh" if fresh else "trained before the clock")
    sys.exit(0)
"""
GPU_SIZES = {"DEPTH": "4", "WIDTH": "64", "HEAD_DIM": "32", "TOTAL_BATCH_TOKENS": "1024", "DEVICE_BATCH_ROWS": "16"}


CHOICE = 'dtypes[fastest("matrix products", runs)]'


def run(folder: Path, profile: str, memory_bytes: int, changes: dict[str, str], *, choice: str = CHOICE) -> str:
    source = edited(changes)
    assert source.count(CHOICE) == 1
    (folder / "prepare.py").write_text(HARNESS)
    (folder / "train.py").write_text(source.replace(CHOICE, choice))
    environment = {"PROFILE": profile, "MEMORY_BYTES": str(memory_bytes), "OMP_WAIT_POLICY": "passive", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "changes", "rows"), [("cpu", {}, 8), ("gpu", GPU_SIZES, 16)])
def test_it_trains_at_the_sizes_of_each_profile_and_ends_in_time(
    tmp_path: Path, profile: str, changes: dict[str, str], rows: int
) -> None:
    log = run(tmp_path, profile, 8 << 30, changes)
    assert "fresh" in log.split("\n"), log
    assert float(re.findall(r"late by (\S+) s", log)[0]) < 0.0, log
    [(first, last)] = re.findall(r"loss from (\S+) to (\S+)", log)
    assert float(first) == pytest.approx(6.24, abs=0.1)  # log(512)
    assert float(last) < float(first) - 1
    [steps], [reported] = re.findall(r"^(\d+) steps", log, re.MULTILINE), re.findall(r"reported (\d+)", log)
    assert int(steps) - int(reported) == (0 if profile == "cpu" else 1)  # the last of a GPU's queue is read after the loop
    assert f" x {rows} rows of 32 tokens per step" in log
    for what in ("matrix products: ", "attention: ", "loss: "):
        assert re.search(rf"^{what}.* ms.* -> ", log, re.MULTILINE), log


@pytest.mark.slow
@pytest.mark.parametrize(("megabytes", "depth", "rows"), [(10.0, 4, 4), (4.5, 2, 1)])
def test_in_a_small_memory_it_takes_fewer_rows_then_fewer_blocks_and_says_so(
    tmp_path: Path, megabytes: float, depth: int, rows: int
) -> None:
    # What fits depends on the dtype, and which one is faster on the moment.
    log = run(tmp_path, "gpu", int(megabytes * 2**20), GPU_SIZES, choice="torch.float32")
    assert "depth 4 with 16 rows does not fit: " in log
    assert f"depth {depth}, eager" in log
    assert f"{1024 // 32 // rows} x {rows} rows of 32 tokens per step" in log
    assert f"scored by {rows} rows" in log
