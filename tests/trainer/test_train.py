"""The file under research, really trained: short, on the tiny corpus, through the referee."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab

from .loading import TRAIN, edited


def trained(lab: Lab) -> tuple[RunResult, str]:
    """Run the lab's train.py; return the result and its log."""
    lab.start_session("new", "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    experiment = wait(lab, experiment.id, 400.0)
    result = lab.ledger.runs(experiment.id)[0].result
    log = lab.executor.log(f"{experiment.id}.1").decode()
    assert result is not None, "the run did not end in time"
    assert result.val_bpb is not None, f"{experiment.reason}\n{log}"
    return result, log


def test_the_file_is_a_fair_candidate_without_a_seed_of_its_own() -> None:
    facts = check_candidate(TRAIN.read_bytes(), None)
    assert facts.warnings == ()
    assert {"DEPTH", "WIDTH", "MATRIX_LR", "TOTAL_BATCH_TOKENS"} <= set(facts.constants)


@pytest.mark.slow
def test_it_learns_within_its_budget_and_hands_its_model_over(make_lab: Callable[..., Lab]) -> None:
    result, log = trained(make_lab(train=TRAIN.read_text(), seconds=6.0))
    assert result.vocab_size == 2048
    assert (result.steps or 0) > 3
    assert (result.elapsed_seconds or 99.0) <= 7.0
    assert (result.val_bpb or 99.0) < 5.0  # a uniform guess over the vocabulary costs more
    assert "depth 4, eager" in log
    assert "1 x 8 rows of 256 tokens per step" in log
    for what in ("matrix products: ", "attention: ", "loss: "):
        assert f"\n{what}" in f"\n{log}"  # each choice with its figures
    assert result.train_tokens is not None
    assert result.train_tokens >= (result.steps or 0) * 2048
    width, depth, vocabulary, context = 128, 4, 2048, 256
    by_hand = 2 * (depth * 12 * width**2 + width * vocabulary) + 4 * depth * context * width  # matrices, and attention
    assert result.forward_flops_per_token == pytest.approx(by_hand, rel=0.02)
    assert result.model_flops_utilisation is None  # nobody knows the best that this processor can do


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_it_trains_compiled_where_a_compiler_is_in_the_sandbox(make_lab: Callable[..., Lab]) -> None:
    _, log = compiling(make_lab, "")
    assert re.search(r"backward: eager \S+ ms, compiled \S+ ms -> (eager|compiled)", log)  # the faster of the two is kept


@pytest.mark.slow
def test_it_trains_eagerly_where_the_sandbox_shows_no_compiler(make_lab: Callable[..., Lab]) -> None:
    _, log = compiling(make_lab, 'import os\nos.environ["CXX"] = "/nowhere/g++"\n')
    assert re.search(r"compiled: .*/nowhere/g\+\+", log)  # the reason
    assert re.search(r"backward: eager \S+ ms, compiled does not run -> eager", log)
    assert "depth 1, eager" in log


def compiling(make_lab: Callable[..., Lab], before: str) -> tuple[RunResult, str]:
    """Run a small train.py that compiles whatever its budget, with ``before`` as its first lines."""
    source = edited({"COMPILE_FROM_SECONDS": "1", "DEPTH": "1"}).replace("import ", f"{before}import ", 1)
    return trained(make_lab(train=source, seconds=2.0))
