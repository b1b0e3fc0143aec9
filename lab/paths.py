"""Where everything lies: every path of a lab's state and of a run is a property of one class.

State lives outside the lab's repository, because agents run `git clean -fdx`. The corpora have a cache of their own
(`prepare.corpus`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_VARIABLE = "AUTORESEARCH_STATE"


def state_root() -> Path:
    """Return the state folder of this user: $AUTORESEARCH_STATE, or the platform's (`autoresearch where` prints it)."""
    if override := os.environ.get(STATE_VARIABLE):
        return Path(override).resolve()
    import platformdirs

    return default_state_folder(Path(platformdirs.user_state_dir("autoresearch", appauthor=False)), Path.home())


def default_state_folder(platform_folder: Path, home: Path) -> Path:
    """Return the platform's state folder, or the one that Linux has where that path has a space, as on macOS.

    A run's compile cache lies below it, and torch.compile splits its compiler commands at spaces.
    """
    return home / ".local" / "state" / "autoresearch" if " " in str(platform_folder) else platform_folder


def device_lock_path(device: str) -> Path:
    """The lock that makes a device exclusive across every lab and server of this user."""
    return state_root() / "devices" / f"{device.replace(':', '-')}.lock"


@dataclass(frozen=True, slots=True)
class WorkspacePaths:
    """The files of a lab that people and agents see."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "autoresearch.toml"

    @property
    def program(self) -> Path:
        return self.root / "program.md"

    @property
    def train(self) -> Path:
        return self.root / TRAIN_FILE

    @property
    def progress_chart(self) -> Path:
        return self.root / "progress.png"

    @property
    def results(self) -> Path:
        return self.root / "results.tsv"


TRAIN_FILE = "trainer/train.py"
PROGRAM_FILE = "program.md"


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The state of one lab, in a folder that only its owner may enter."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def search_index(self) -> Path:
        """Made from the ledger, and made anew whenever it is missing (`search`)."""
        return self.root / "search.db"

    @property
    def validation_secret(self) -> Path:
        return self.root / "validation.secret"

    @property
    def dispatch_lock(self) -> Path:
        return self.root / "dispatch.lock"

    @property
    def workspace_lock(self) -> Path:
        """Held by the process whose researcher works in the lab's own folder."""
        return self.root / "workspace.lock"

    @property
    def workspace_holder(self) -> Path:
        """Says who holds that lock, for people."""
        return self.root / "workspace.json"

    @property
    def tokens(self) -> Path:
        """Whose HTTP requests are answered."""
        return self.root / "tokens.json"

    @property
    def attending(self) -> Path:
        """A file for each server whose client researches."""
        return self.root / "attending"

    @property
    def harness(self) -> Path:
        return self.root / "harness"

    @property
    def pins(self) -> Path:
        return self.root / "pins"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def unfinished(self) -> Path:
        """An empty file for each run that had not ended when it was last looked at."""
        return self.root / "unfinished"

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.runs / run_id)


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The folder of one attempt at a run."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def code(self) -> Path:
        """What the candidate sees beside itself: train.py and the pinned prepare/."""
        return self.root / "code"

    @property
    def scratch(self) -> Path:
        """The only folder that the candidate may write."""
        return self.root / "scratch"

    @property
    def python(self) -> Path:
        """The virtual environment of links that the run sees."""
        return self.root / "python"

    @property
    def scoring(self) -> Path:
        """Holds one folder for each scoring process, which it may write."""
        return self.root / "scoring"

    @property
    def model(self) -> Path:
        return self.scratch / "model.pkl"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def runner_log(self) -> Path:
        return self.root / "runner.log"

    @property
    def workers_log(self) -> Path:
        """What the scoring processes say before they part; each has an output of its own afterwards."""
        return self.root / "workers.log"

    @property
    def runner_lock(self) -> Path:
        """Held by the runner for its whole life: who cannot take it knows that the runner lives."""
        return self.root / "runner.lock"

    @property
    def clock(self) -> Path:
        return self.root / "clock"

    @property
    def curve(self) -> Path:
        return self.root / "curve.jsonl"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

    @property
    def claims(self) -> Path:
        """What the scored model claimed for each position: where the audits of its children look."""
        return self.root / "claims.npz"

    @property
    def cancel(self) -> Path:
        """The file whose existence asks the runner to stop."""
        return self.root / "cancel"

    @property
    def processes(self) -> Path:
        return self.root / "processes.json"

    @property
    def result(self) -> Path:
        """Written whole, as the runner's last act."""
        return self.root / "result.json"
