"""Labs to kill in: made once in several stages, and copied for each case to the same place, so that every path in them holds.

Each has a user with work of their own: changed, staged, deleted and untracked files, CRLF line ends with ``core.autocrlf``, a
mode that differs from the index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.calibration import record
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.isolation import BUBBLEWRAP, probe
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.paths import STATE_VARIABLE
from autoresearch_mcp.lab.scaffold import create_lab
from autoresearch_mcp.lab.states import Decision

from ..quick.adopt import adopt_quick_runner

CHAMPION, UNDECIDED = "e0001", "e0002"

_GATE = '[gate]\nrule = "any"\nmeasure_when_idle = false\n'

QUICK_TRAIN_PY = b"""\
from prepare import evaluate_bpb, make_dataloader\r
\r
WIDTH = 16\r
DEPTH = 2\r
HEADS = 4\r
\r
# quick: val_bpb=2.0\r
make_dataloader(None, 1, 1, "train")\r
evaluate_bpb(None, None, 1)\r
"""

# Another idea, which touches other lines and gains as much again on top of the first one.
OTHER_TRAIN_PY = b"# quick: minus=0.1\r\n" + QUICK_TRAIN_PY

# What the real runner trains: as little as can be scored. It prints what it sees of the test's variables.
REAL_TRAIN_PY = b"""\
import os
import torch
from prepare import MAX_SEQ_LEN, SEED, Tokenizer, evaluate_bpb, make_dataloader, report

torch.manual_seed(SEED)


class Bias(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(vocab_size))

    def forward(self, idx, targets=None):
        logits = self.bias.expand(*idx.shape, -1)
        if targets is None:
            return logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


print("sees", sorted(name for name in os.environ if "KILL" in name or name == "PYTHONPATH"))
tokenizer = Tokenizer.load(257)
model = Bias(tokenizer.vocab_size)
optimizer = torch.optim.SGD(model.parameters(), 1.0)
loader = make_dataloader(tokenizer, 4, MAX_SEQ_LEN, "train")
for step in range(5):
    x, y, epoch = next(loader)
    loss = model(x, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    report(step, loss=loss.item())
evaluate_bpb(model, tokenizer, 16)
"""


def idea(val_bpb: float, *, wishes: str = "") -> bytes:
    """The train.py of the quick runner that measures this."""
    return QUICK_TRAIN_PY.replace(b"val_bpb=2.0", f"val_bpb={val_bpb} {wishes}".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the lab of the case lies, with its state and the notes of the hook beside it."""

    root: Path

    @property
    def lab(self) -> Path:
        return self.root / "lab"

    @property
    def train(self) -> Path:
        return self.lab / "trainer" / "train.py"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @contextmanager
    def opened(self, *, real: bool = False) -> Iterator[Lab]:
        """The lab, as a server that is started now sees it."""
        lab = Lab.open(self.lab, isolation=probe() if real else BUBBLEWRAP, pinned=False)
        try:
            yield lab
        finally:
            lab.close()

    def reached(self, label: str) -> int:
        """How often a point was reached."""
        return len(list(self.notes.glob(f"{label}.*")))

    def processes(self) -> list[psutil.Process]:
        """Every living process that belongs to this lab: by its environment, command line or folder."""
        found, here = [], str(self.root)
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                signs = [process.cwd(), *process.cmdline(), process.environ().get(STATE_VARIABLE, "")]
                if any(here in sign for sign in signs):
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """What a machine does that stops."""
        while there := self.processes():
            for process in there:
                with suppress(psutil.Error):
                    process.kill()


def make_stages(place: Place, stages: Path, corpus: str) -> None:
    """Make a lab at ``place`` and copy what it is at each stage below ``stages``."""

    def save(stage: str) -> None:
        shutil.copytree(place.root, stages / stage, symlinks=True)

    _make_repository(place, corpus, QUICK_TRAIN_PY)
    save("bare")
    with place.opened() as lab:
        record(lab.ledger, background_share=0.0, threshold=1.0)
        adopt_quick_runner(lab)
    save("opened")
    with place.opened() as lab:
        lab.start_session(None, "tester")
    save("begun")
    with place.opened() as lab:
        finish(lab, propose(lab, "baseline"), Decision.KEPT)
        place.train.write_bytes(idea(1.9))
        finish(lab, propose(lab, "an idea"), Decision.PENDING)
    save("scored")
    with place.opened() as lab:  # another idea is measured, and before it is decided the first one becomes the champion
        place.train.write_bytes(OTHER_TRAIN_PY)
        finish(lab, propose(lab, "another idea"), Decision.PENDING)
        experiments.keep(lab, UNDECIDED, "")
    save("stale")
    shutil.rmtree(place.root)
    _make_repository(place, corpus, REAL_TRAIN_PY)
    with place.opened(real=True) as lab:
        record(lab.ledger, background_share=0.0, threshold=1.0)
        lab.start_session(None, "tester")
    save("real")
    shutil.rmtree(place.root)


def propose(lab: Lab, description: str) -> str:
    return experiments.propose(lab, description=description, hypothesis="")[0].id


def finish(lab: Lab, experiment_id: str, decision: Decision) -> None:
    experiment = wait(lab, experiment_id, 60.0)
    assert experiment.decision is decision, experiment


def _make_repository(place: Place, corpus: str, train: bytes) -> None:
    """A repository with a user's unfinished work in it; HEAD's train.py is not the one that lies there."""
    lab = place.lab
    (lab / "trainer").mkdir(parents=True)
    place.notes.mkdir()
    place.train.write_bytes(train + b"# an older one\r\n")
    (lab / "autoresearch.toml").write_text(f'[budget]\nseconds = 5.0\n{_GATE}[corpus]\nname = "{corpus}"\n')
    for name in ("changed.txt", "staged.txt", "gone.txt", "removed.txt", "tool.sh"):
        (lab / name).write_bytes(f"{name} as committed\r\n".encode())
    create_lab(lab)
    _git(lab, "config", "core.autocrlf", "true")
    _git(lab, "add", "changed.txt", "staged.txt", "gone.txt", "removed.txt", "tool.sh")
    _git(lab, "-c", "user.name=user", "-c", "user.email=user@localhost", "commit", "-qm", "work")
    (lab / "changed.txt").write_bytes(b"changed, \r\n mixed line ends \n")
    (lab / "staged.txt").write_bytes(b"staged\r\n")
    (lab / "new.txt").write_bytes(b"staged as new\n")
    _git(lab, "add", "staged.txt", "new.txt")
    (lab / "new.txt").write_bytes(b"and changed since\n")
    _git(lab, "rm", "-q", "removed.txt")
    (lab / "gone.txt").unlink()
    (lab / "tool.sh").chmod(0o755)
    (lab / "untracked.bin").write_bytes(bytes(range(256)))
    place.train.write_bytes(train)


def _git(lab: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "-C", str(lab), *arguments], check=True, env=environment, capture_output=True)


Copy = Callable[[str], Place]
