"""What the ledger holds, as values: sessions, experiments and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .config import LabConfig
from .executor import RunResult
from .states import Decision, Purpose, RunState, Verdict

Changes = Mapping[str, tuple[str | None, str | None]]  # constants of train.py: name -> (old, new) as source text


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRules:
    """The autoresearch.toml and the program.md that the human accepted; later edits of the files do not count yet."""

    config: LabConfig
    program_sha256: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One research effort in a lab; owns the branch ``autoresearch/<tag>``."""

    tag: str
    researcher: str
    base_commit: str
    base_sha256: str  # of the train.py that the session started from
    group: str  # comparability group: numbers of different groups are never compared
    config: str  # autoresearch.toml as pinned, canonical JSON
    harness: str  # SHA-256 of the pinned harness
    program_sha256: str
    created_at: float
    champion: str | None  # id of the best kept experiment
    version: int  # counts the champions; keep is a compare-and-swap on it
    test_openings: int = 0  # how often its test split was opened

    @property
    def branch(self) -> str:
        return f"refs/heads/autoresearch/{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Researcher:
    """One who works in a session: where, and which champion its train.py builds on."""

    session: str
    name: str
    workspace: str  # folder below the lab's root, POSIX; empty: the root itself
    base: str | None  # the champion that its train.py was made from; None: the file that the session started from
    base_version: int
    joined_at: float
    holds: str | None  # the experiment that its train.py was proposed as last; None: not since it was restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One idea and what became of it."""

    id: str
    session: str
    researcher: str
    parent: str | None  # the champion it is judged against; None for the baseline
    parent_version: int
    description: str
    hypothesis: str
    candidate_sha256: str
    commit: str
    program_sha256: str
    lines: int  # of code
    lines_delta: int  # against the parent
    created_at: float
    verdict: Verdict | None
    reason: str  # of the verdict, one sentence
    val_bpb: float | None
    standard_error: float | None
    delta: float | None  # against the parent; negative is better
    z: float | None
    confidence: float | None  # that the experiment is truly better than its parent
    keepable: bool
    decision: Decision
    note: str  # why it was kept, or the lesson of a revert
    decided_at: float | None
    theme: str  # what it is about, as `themes` reads it
    changes: Changes
    added: int  # lines, against the parent
    removed: int
    rebase_of: str | None  # the experiment whose change the server merged onto a newer champion; None: a researcher's own bytes
    after_test: bool = False  # proposed after the session's test split was opened

    @property
    def ref(self) -> str:
        """The full ref that protects the candidate's commit."""
        return f"refs/autoresearch/{self.session}/{self.id}"

    @property
    def is_baseline(self) -> bool:
        return self.parent is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of an experiment's candidate with one seed."""

    id: str
    experiment: str
    attempt: int
    seed: int
    purpose: Purpose
    device: str
    state: RunState
    result: RunResult | None
    created_at: float
    finished_at: float | None
    started_at: float | None  # the newest attempt

    @property
    def attempt_id(self) -> str:
        """The executor's key: the run itself, or one more try after its runner died."""
        return self.id if self.attempt == 1 else f"{self.id}-{self.attempt}"
