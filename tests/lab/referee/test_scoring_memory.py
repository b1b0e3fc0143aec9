"""Which batches fit into a run's memory limit, measured on a real process; and a model that is greedy, through real workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.scoring_memory import ScoringMemory
from autoresearch_mcp.lab.states import Verdict

MB = 1 << 20
# Reads sizes in MB, line by line: fills so much memory, gives it back but for what a leading "+" keeps, and says so.
GREEDY = """
import sys
kept = []
for line in sys.stdin:
    filled = b"x" * (int(line) << 20)
    if line.startswith("+"):
        kept.append(filled)
    del filled
    print("done", flush=True)
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what a process has at most taken")


class Greedy:
    """A process that takes memory when it is told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.take("0")

    def take(self, megabytes: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{megabytes}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


@pytest.fixture
def two() -> Iterator[list[Greedy]]:
    made = [Greedy(), Greedy()]
    yield made
    for one in made:
        one.process.kill()
        one.process.communicate()


def memory_of(two: list[Greedy], *, limit_mb: int) -> ScoringMemory:
    return ScoringMemory(
        limit_bytes=limit_mb * MB,
        total_bytes=lambda: sum(one.resident_bytes() for one in two),
        pids=[one.process.pid for one in two],
    )


@linux
@pytest.mark.parametrize(("limit_mb", "fits"), [(700, True), (250, False)])
def test_a_second_process_loads_a_model_where_it_fits_beside_the_first(two: list[Greedy], limit_mb: int, fits: bool) -> None:
    memory = memory_of(two, limit_mb=limit_mb)
    two[0].take("150")  # a pickle, let go
    two[0].take("+80")
    memory.loaded()
    assert memory.another_fits() is fits


@linux
def test_all_load_a_model_at_once_only_where_there_is_plenty_of_room(two: list[Greedy]) -> None:
    memory = memory_of(two, limit_mb=1500)
    assert memory.all_fit(10 * MB)
    assert not memory.all_fit(120 * MB)


@linux
def test_twice_the_rows_fit_where_twice_of_what_one_batch_took_does(two: list[Greedy]) -> None:
    memory = memory_of(two, limit_mb=700)
    for one in two:
        one.take("+50")
        memory.loaded()
    two[0].take("60")
    assert memory.twice_fits()  # 100 + 2 * 2 * 60
    two[1].take("140")
    assert not memory.twice_fits()  # 100 + 2 * 2 * 140, although nobody holds it any more


def test_where_nothing_is_known_everything_fits() -> None:
    memory = ScoringMemory(limit_bytes=1 << 30, total_bytes=lambda: 0, pids=[2**30])
    memory.loaded()
    assert memory.another_fits()
    assert memory.twice_fits()


GREEDY_TRAIN_PY = """
import torch
from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb, make_dataloader

ROW_MB = {row_mb}  # that one row takes in the forward, and gives back


class Greedy(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(vocab_size, vocab_size))

    def forward(self, idx):
        rows = torch.ones(len(idx), ROW_MB << 18)
        return self.table[idx] + 0 * rows.sum()


tokenizer = Tokenizer.load(512)
make_dataloader(tokenizer, 1, MAX_SEQ_LEN, "train")
evaluate_bpb(Greedy(tokenizer.vocab_size), tokenizer, 64)
"""


@pytest.mark.slow
@linux
def test_a_model_whose_large_batches_need_too_much_memory_is_scored_in_smaller_ones(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(train=GREEDY_TRAIN_PY.format(row_mb=16), extra="[limits]\nmemory_mb = 800\n")
    lab.start_session(None, "tester")
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    experiment = wait(lab, experiment.id, 90.0)
    assert (experiment.verdict, experiment.keepable) == (Verdict.IMPROVED, True), experiment.reason
    result = lab.ledger.runs(experiment.id)[0].result
    assert result is not None
    assert "scored in batches of" in result.reason
    assert "fit into [limits] memory_mb" in result.reason
    assert result.val_bpb == pytest.approx(9 * result.scored_tokens / result.scored_bytes, abs=1e-5)
