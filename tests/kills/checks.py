"""What holds of a lab whatever died in it, checked from the outside: the record, git, the user's files, and the machine."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.states import AWAITED, Decision, Outcome, RunState

from .labs import Place

_GONE_SECONDS = 15.0
# What may become of an experiment and of a run, one letter for each event.
_EXPERIMENT = {
    "experiment_recorded": "r",
    "experiment_judged": "j",
    "experiment_reopened": "o",
    "experiment_kept": "k",
    "experiment_reverted": "v",
}
_RUN = {"run_queued": "q", "run_started": "s", "run_retried": "t", "run_finished": "f"}
_LIFE = re.compile(r"rq(s(ts)?)?fj(o(q|s|t|f)+j)?(k|v)?")  # with its awaited runs; a cancelled one may never have been started
_RUN_LIFE = re.compile(r"q(s(ts)?)?f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """What belongs to the user, to the byte: files with their modes and times, git's own files, refs that are not ours.

    The folders of further researchers are ours.
    """

    files: Mapping[str, tuple[int, int, bytes]]
    git: Mapping[str, bytes]

    @classmethod
    def of(cls, place: Place) -> Users:
        files, git = {}, {}
        for path in sorted(place.lab.rglob("*")):
            name = path.relative_to(place.lab).as_posix()
            if path.is_dir() or path == place.train or name.startswith(".autoresearch/"):
                continue
            if not name.startswith(".git/"):
                files[name] = (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            elif not re.match(
                r"\.git/(objects/|(logs/)?refs/(heads/)?autoresearch/|worktrees/autoresearch-|autoresearch\.(json|lock)$)", name
            ):
                git[name] = path.read_bytes()
        return cls(files=files, git=git)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What a repeated call must not change."""

    ledger_head: str
    refs: Mapping[str, str]
    train: bytes

    @classmethod
    def of(cls, place: Place, lab: Lab) -> Now:
        refs = {**lab.git.refs("refs/autoresearch"), **lab.git.refs("refs/heads/autoresearch")}
        return cls(ledger_head=lab.ledger.head(), refs=refs, train=place.train.read_bytes())


def require_whole(place: Place, lab: Lab, users: Users, *, train: bytes, backups: int = 0) -> None:
    """Require that nothing was lost, doubled or left behind."""
    assert lab.ledger.verify() == []
    _require_one_life_each(lab)
    _require_one_result_each(lab)
    _require_refs(lab, backups)
    assert place.train.read_bytes() == train
    after = Users.of(place)
    assert after.files == users.files
    assert after.git == users.git
    require_nobody(place)


def require_nobody(place: Place) -> None:
    """Require that no process of ours is left, soon."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (left := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, [process.cmdline() for process in left]


def _require_one_life_each(lab: Lab) -> None:
    """One sequence of events for each experiment and for the lab, with nothing in it twice."""
    lives, runs, awaited = defaultdict[str, str](str), defaultdict[str, str](str), set[str]()
    once: Counter[str] = Counter()
    for row in lab.ledger.events_after(0):
        kind, body = row["kind"], json.loads(row["body"])
        if kind == "run_queued" and body["purpose"] in AWAITED:
            awaited.add(body["id"])
        if kind in _RUN:
            runs[body["id"]] += _RUN[kind]
            if body["id"] in awaited:
                lives[body["id"].partition(".")[0]] += _RUN[kind]
        elif kind in _EXPERIMENT:
            lives[body["id"]] += _EXPERIMENT[kind]
        else:
            once[kind] += 1
    for members, pattern in ((lives, _LIFE), (runs, _RUN_LIFE)):
        for name, life in members.items():
            assert pattern.fullmatch(life), f"{name}: {life}"
    assert once["lab_created"] == 1
    assert once["rules_accepted"] == once["session_started"] <= 1
    assert once["train_file_restored"] <= 1
    assert once["test_opened"] == once["test_compared"] <= 1


def _require_one_result_each(lab: Lab) -> None:
    """Each run has one result, which is that of one of its attempts, or of none where it is lost or was cancelled."""
    for folder in lab.state.runs.iterdir():
        assert not [path.name for path in folder.iterdir() if path.is_dir() and path.name != "code"], "scratch is left"
    for experiment in lab.ledger.experiments():
        for run in (*lab.ledger.runs(experiment.id), *lab.ledger.test_runs(experiment.id)):
            assert run.state is RunState.FINISHED
            assert run.result is not None
            paths = [lab.state.run(run.id if n == 1 else f"{run.id}-{n}") for n in range(1, run.attempt + 1)]
            written = [json.loads(each.result.read_text()) for each in paths if each.result.exists()]
            if run.result.outcome in (Outcome.LOST, Outcome.CANCELLED):
                assert len(written) <= 1
                continue
            assert len(written) == 1
            assert written[0]["val_bpb"] == run.result.val_bpb
            assert run.result.tainted is None


def _require_refs(lab: Lab, backups: int) -> None:
    """The branch is at the champion; every candidate has its ref, and there is no other but the backups."""
    expected = {}
    for session in lab.ledger.sessions():
        champion = lab.champion(session)
        assert lab.git.ref(session.branch) == (session.base_commit if champion is None else champion.commit)
        kept = lab.ledger.experiments("session = ? AND decision = ?", session.tag, Decision.KEPT, order="decided_at")
        assert (kept[-1].id if kept else None) == session.champion
        assert len(kept) == session.version
        for experiment in lab.ledger.experiments("session = ?", session.tag):
            expected[f"refs/autoresearch/{session.tag}/{experiment.id}"] = experiment.commit
    there = lab.git.refs("refs/autoresearch")
    saved = {name for name in there if name.startswith("refs/autoresearch/backup/")}
    assert {name: there[name] for name in there.keys() - saved} == expected
    assert len(saved) == backups
