"""A seed written into train.py draws a warning with its line, however it gets there in an ordinary file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.seeds import seed_warnings

HEAD = b"""\
import torch
from prepare import SEED, evaluate_bpb, make_dataloader

loader = make_dataloader(None, 8, 256, "train")
evaluate_bpb(None, None, 8)
"""


@pytest.mark.parametrize(
    "call",
    [
        "torch.manual_seed(42)",
        "torch.random.manual_seed(42)",
        "torch.cuda.manual_seed_all(-1)",
        "torch.Generator().manual_seed(seed=3)",
        "torch.Generator(device='cpu').manual_seed(2**31 - 1)",
        "np.random.seed(1)",
        "numpy.random.seed(seed=1)",
        "np.random.RandomState(5)",
        "np.random.Generator(np.random.PCG64(5))",
        "random.seed(1.5)",
        "random.Random(7)",
        "np.random.default_rng(1)",
        "np.random.default_rng(seed=7)",
        "default_rng(7)",
    ],
)
def test_a_seed_in_the_file_is_a_warning_with_its_line(call: str) -> None:
    (warning,) = check_candidate(HEAD + f"\n{call}\n".encode(), None).warnings
    assert warning.startswith("line 7: ")
    assert warning.endswith("the seed is the referee's: use prepare.SEED")


@pytest.mark.parametrize(
    ("code", "origin"),
    [
        ("SEED_X = 1337\ntorch.manual_seed(SEED_X)", "SEED_X of line 1"),
        ("seed: int = 1337\ntorch.manual_seed(seed + 1)", "seed of line 1"),
        ("A, LUCKY = 1, 7\nrandom.seed(LUCKY)", "LUCKY of line 1"),
        ("BASE = 10\nRUN = BASE * 3\nnp.random.default_rng(RUN)", "RUN of line 2"),
        ("SEED = 42\ntorch.manual_seed(SEED)", "SEED of line 1"),
        ("def main():\n    s = 3\n    torch.manual_seed(s)", "s of line 2"),
    ],
)
def test_a_constant_that_is_passed_on_is_named_with_its_own_line(code: str, origin: str) -> None:
    (warning,) = seed_warnings(ast.parse(code))
    assert warning.startswith(f"line {code.count(chr(10)) + 1}: ")
    assert f"a number ({origin})" in warning


@pytest.mark.parametrize(
    "code",
    [
        "from random import seed\nseed(1)",
        "from torch import manual_seed as start_from\nstart_from(1)",
        "import numpy.random as npr\nnpr.seed(1)",
        "import random as rnd\nrnd.seed(1)",
    ],
)
def test_another_name_for_the_same_function_is_recognised(code: str) -> None:
    (warning,) = seed_warnings(ast.parse(code))
    assert warning.startswith("line 2: ")


@pytest.mark.parametrize(
    "code",
    [
        "torch.manual_seed(SEED)",
        "np.random.default_rng(SEED + 1)",
        "model.seed(3)",
        "torch.manual_seed()",
        "seed(3)",
        "STEPS = 3\nrandom.seed(SEED)",
        "default_rng()",
        "Random(3)",
    ],
)
def test_the_referees_seed_and_other_calls_are_no_warning(code: str) -> None:
    assert seed_warnings(ast.parse(code)) == ()


def test_many_seeds_give_ten_warnings_in_order() -> None:
    warnings = check_candidate(HEAD + b"torch.manual_seed(1)\n" * 50, None).warnings
    assert [warning.split(":")[0] for warning in warnings] == [f"line {number}" for number in range(6, 16)]


def test_the_shipped_file_takes_its_seed_from_the_referee() -> None:
    shipped = Path(__file__).resolve().parents[2] / "trainer" / "train.py"
    assert seed_warnings(ast.parse(shipped.read_text())) == ()
