"""What an idea is about: the constants decide, then the words, then the lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.lab.themes import OTHER, THEMES, change_of, changed_lines, theme_of

TRAIN = (Path(__file__).resolve().parents[2] / "trainer" / "train.py").read_bytes()


@pytest.mark.parametrize(
    ("name", "theme"),
    [
        ("WARMDOWN_FRACTION", "schedule"),
        ("FINAL_LR_FRACTION", "schedule"),
        ("MATRIX_LR", "learning rate"),
        ("LEARNING_RATE", "learning rate"),
        ("WEIGHT_DECAY", "regularisation"),
        ("ADAM_BETA2", "optimizer"),
        ("MOMENTUM_RAMP_STEPS", "optimizer"),
        ("HEAD_DIM", "attention"),
        ("ROPE_BASE", "attention"),
        ("TOTAL_BATCH_TOKENS", "batch"),
        ("SOFTCAP", "loss"),
        ("VOCAB_SIZE", "data"),
        ("COMPILE_FROM_SECONDS", "speed"),
        ("DEPTH", "architecture"),
        ("INIT_STD", "initialisation"),
    ],
)
def test_a_constant_of_train_py_has_its_theme(name: str, theme: str) -> None:
    assert theme_of([name], "", []) == theme


def test_every_constant_of_the_models_and_the_optimizer_has_a_theme() -> None:
    constants = check_candidate(TRAIN, None).constants
    assert {name for name in constants if theme_of([name], "", []) == OTHER} <= {"CPU", "STATE_BYTES", "MEMORY_SHARE", "TIE"}


@pytest.mark.parametrize(
    ("description", "theme"),
    [
        ("raise lr of the head", "learning rate"),
        ("more weight decay on the matrices", "regularisation"),
        ("definitely use a cosine schedule", "schedule"),
        ("swap relu for swiglu in the MLP", "architecture"),
        ("clip the gradients of Muon", "optimizer"),
        ("something else entirely", OTHER),
    ],
)
def test_without_a_constant_the_description_tells(description: str, theme: str) -> None:
    assert theme_of([], description, ["x = softmax(x)"] if theme != OTHER else []) == theme


def test_constants_tell_more_than_words_and_words_more_than_lines() -> None:
    assert theme_of(["DEPTH"], "a better optimizer", ["x = softmax(x)"]) == "architecture"
    assert theme_of([], "a better optimizer", ["x = softmax(x)"]) == "optimizer"
    assert theme_of([], "an idea", ["x = softmax(x)"]) == "attention"
    assert OTHER in THEMES


def test_a_change_counts_its_constants_and_lines() -> None:
    child = TRAIN.replace(b"SOFTCAP = 15.0", b"SOFTCAP = 30.0") + b"\n# the end\n"
    change = change_of(check_candidate(TRAIN, None), check_candidate(child, TRAIN), TRAIN, child, "looser")
    assert dict(change.constants) == {"SOFTCAP": ("15.0", "30.0")}
    assert (change.theme, change.added, change.removed) == ("loss", 3, 1)


def test_changed_lines_are_those_that_are_there_more_or_less_often() -> None:
    assert changed_lines(b"a\nb\nb\nc\n", b"b\na\nd\nb\nb\n") == (["b", "d"], ["c"])
    assert changed_lines(b"a\nb\n", b"b\na\n") == ([], [])
