"""Fixtures: state and caches in temporary folders, a tiny corpus, and labs on it with a small train.py."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.calibration import record
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import try_lock
from autoresearch_mcp.lab.scaffold import create_lab
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.sources import FetchReport, Project
from hypothesis import HealthCheck, settings

from .quick.adopt import adopt_quick_runner

# A busy machine is no fault of a test's examples.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

TRAIN_PY = '''\
"""A small honest candidate: embeddings of the last token, trained for a moment."""
import torch
from prepare import DEVICE, MAX_SEQ_LEN, SEED, Tokenizer, evaluate_bpb, make_dataloader, rehearse, report, seconds_left

WIDTH = 16  # size of the embedding
LEARNING_RATE = 0.05  # of AdamW

torch.manual_seed(SEED)


class Bigram(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, WIDTH)
        self.head = torch.nn.Linear(WIDTH, vocab_size)

    def forward(self, idx, targets=None):
        logits = self.head(self.embedding(idx))
        if targets is None:
            return logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


tokenizer = Tokenizer.load(257)
model = Bigram(tokenizer.vocab_size).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
loader = make_dataloader(tokenizer, 4, MAX_SEQ_LEN, "train")
step = 0
while seconds_left() > 0.3:
    x, y, epoch = next(loader)
    loss = model(x, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    report(step, loss=loss.item())
    step += 1
print("trained", step, "steps")
evaluate_bpb(model, tokenizer, 16)
'''

_syllables = random.Random(0)
_WORDS = [
    "".join(_syllables.choice("bdfgklmnprstvz") + _syllables.choice("aeiou") for _ in range(_syllables.randint(1, 4)))
    for _ in range(4000)
]


class WordsSource:
    """A corpus of random sentences: words enough for a vocabulary of 2048, and never the same 13 in a row."""

    key = "words:1"
    max_overlap = 0.01
    projects = tuple(
        Project(name=name, version="1", sha256=f"{index:064x}", split=split)
        for index, (name, split) in enumerate([("one", "train"), ("two", "val"), ("three", "test")])
    )

    def fetch(self, scratch: Path, report: FetchReport) -> tuple[Project, ...]:
        """Nothing to fetch: the text is made here."""
        return self.projects

    def documents(self, project: Project, scratch: Path) -> Iterator[str]:
        words = random.Random(project.name)
        for number in range(120 if project.split == "train" else 60):
            # The first is long enough for a window of the GPU profile.
            lines = [" ".join(words.choices(_WORDS, k=9)) for _ in range(100 if number == 0 else 60)]
            yield "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("autoresearch")
        patch.setenv("AUTORESEARCH_STATE", str(root / "state"))
        patch.setenv("AUTORESEARCH_CACHE", str(root / "cache"))
        patch.setenv("AUTORESEARCH_KEEP_AWAKE", "0")
        yield root


@pytest.fixture(scope="session", autouse=True)
def _private_folders(_folders: Path) -> None:
    """No test touches the user's own state or caches."""


@pytest.fixture(scope="session")
def tiny_corpus(_folders: Path) -> str:
    """The name of a small prepared corpus."""
    return prepare_corpus("tiny", source=WordsSource()).name


# What labs of the quick runner start from; edit the number to decide what is measured (tests/quick/runner.py).
QUICK_TRAIN_PY = """\
# quick: val_bpb=2.0
from prepare import evaluate_bpb, make_dataloader

WIDTH = 16
DEPTH = 2

make_dataloader(None, 1, 1, "train")
evaluate_bpb(None, None, 1)
"""

MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(tmp_path: Path, tiny_corpus: str) -> Iterator[MakeLab]:
    """Return a function that makes and opens a lab on the tiny corpus with a budget of a second or two."""
    opened: list[Lab] = []

    def make(
        *,
        train: str = TRAIN_PY,
        seconds: float = 2.0,
        name: str = "lab",
        extra: str = "",
        scoring_seconds: float = 60.0,
        pinned: bool = False,  # seconds for each lab
        gate: str = "any",  # one run decides
        idle: bool = False,  # noise is measured while nothing else runs
    ) -> Lab:
        folder = tmp_path / name
        (folder / "trainer").mkdir(parents=True)
        (folder / "trainer" / "train.py").write_text(train)
        (folder / "autoresearch.toml").write_text(
            f'[budget]\nseconds = {seconds}\nscoring_seconds = {scoring_seconds}\n[gate]\nrule = "{gate}"\n'
            f'measure_when_idle = {str(idle).lower()}\n[corpus]\nname = "{tiny_corpus}"\n{extra}'
        )
        create_lab(folder)
        lab = Lab.open(folder, pinned=pinned)
        record(lab.ledger, background_share=0.0, threshold=1.0)  # tests share their machine: no run of theirs is contended
        opened.append(lab)
        return lab

    yield make
    for lab in opened:
        lab.close()


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """A lab with a session, nothing run yet."""
    lab = make_lab()
    lab.start_session(None, "tester")
    return lab


@pytest.fixture
def make_quick_lab(make_lab: MakeLab) -> MakeLab:
    """Like `make_lab`, with a session, and nothing is trained: a run takes a moment and measures what train.py says it does."""

    def make(**arguments: Any) -> Lab:
        lab = make_lab(**{"train": QUICK_TRAIN_PY, "seconds": 5.0, **arguments})
        adopt_quick_runner(lab)
        lab.start_session(None, "tester")
        return lab

    return make


@pytest.fixture
def still(lab: Lab) -> Iterator[Lab]:
    """A lab in which nothing is dispatched: results are recorded by hand."""
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    yield lab
    os.close(hold)


@pytest.fixture(scope="session")
def train_py() -> str:
    """The candidate that labs of the tests start from."""
    return TRAIN_PY
