"""A branch for review: on top of a session's first commit one commit for each kept change, with its numbers in the message.

It is made from the record alone, with the record's times, so that the same record gives the same commits by name. Guarantees:
each commit changes trainer/train.py and nothing else; one new branch below refs/heads/autoresearch/ is made, and HEAD, the
index, the files and every other ref stay as they are; the numbers are those that the change was kept for, so what is measured
later makes no other commits; what a researcher wrote stands on lines of its own and never where trailers are read.

Does not: judge, merge, push, or move a branch that exists.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .confirmation import weigh
from .errors import DecisionError, GitError, LedgerError
from .export import one_field
from .files import sha256_hex
from .git import TAG_RULE, validate_tag
from .lab import Lab
from .ledger import Event
from .paths import TRAIN_FILE
from .records import Experiment, Run, Session

_FOLDER = "refs/heads/autoresearch/"
_SUFFIX = "-final"  # of the branch, where none is named
_SUBJECT_CHARACTERS = 72
_TEXT_CHARACTERS = 2_000  # of a hypothesis or a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCommit:
    """One kept change on the branch."""

    commit: str
    subject: str
    experiment: Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewBranch:
    """The branch, its commits the oldest first, and whether this call made it; else it was there, just so."""

    ref: str
    base_commit: str
    commits: Sequence[ReviewCommit]
    is_new: bool

    @property
    def name(self) -> str:
        return self.ref.removeprefix("refs/heads/")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A kept experiment, with the events that say what it was kept for."""

    experiment: Experiment
    decided: Event
    judged: Event
    runs: Sequence[Run]  # that had ended when it was kept


def finalize(lab: Lab, session: Session, name: str = "") -> ReviewBranch:
    """Make the branch of a session's kept changes, or find it as it would be made.

    Args:
        lab: where the session was.
        session: whose changes.
        name: of the branch below ``autoresearch/``; empty: the session's tag and "-final".

    Raises:
        DecisionError: nothing was kept that changes train.py.
        GitError: the name cannot be a branch's, is a session's, or is taken by other commits; or a commit is missing here.
        LedgerError: a stored train.py is not the recorded one.
    """
    ref = _ref_of(lab, session, name)
    if not lab.git.object_exists(session.base_commit):
        raise GitError(
            f"The first commit {session.base_commit[:12]} of {session.tag} is gone. Run `autoresearch repair` first."
        )
    commits = list(_commits(lab, session))
    if not commits:
        raise DecisionError(
            f"The session {session.tag} has kept no change of {TRAIN_FILE} yet, so there is nothing to review. "
            "`autoresearch history` lists what was tried."
        )
    tip, found = commits[-1].commit, lab.git.ref(ref)
    branch = ReviewBranch(ref=ref, base_commit=session.base_commit, commits=commits, is_new=found is None)
    if found is None:
        lab.git.update_ref(ref, tip, None)
    elif found != tip:
        raise GitError(_is_taken(branch, found))
    return branch


def _ref_of(lab: Lab, session: Session, name: str) -> str:
    short = (name or session.tag + _SUFFIX).removeprefix("autoresearch/")
    another = "Pass another name with --branch NAME"
    try:
        validate_tag(short)
    except GitError:
        raise GitError(f"The branch cannot be called autoresearch/{short}: {TAG_RULE}. {another}.")
    if lab.ledger.session(short) is not None:
        raise GitError(f"autoresearch/{short} is the branch of the session {short}, which follows its champion. {another}.")
    return _FOLDER + short


def _is_taken(branch: ReviewBranch, found: str) -> str:
    commits = [each.commit for each in branch.commits]
    holds = (
        f"the first {commits.index(found) + 1} of these {len(commits)} changes"
        if found in commits
        else "other commits than the record gives"
    )
    return (
        f"The branch {branch.name} is there and holds {holds} (it is at {found[:12]}), so it was left alone. Pass another name "
        f"with --branch NAME, or delete it (`git branch -D {branch.name}`) and call again."
    )


def _commits(lab: Lab, session: Session) -> Iterator[ReviewCommit]:
    """Store the commits, and yield each; a baseline that is the session's first file changes nothing and has none."""
    parent, before = session.base_commit, lab.ledger.stored(session.base_sha256)
    for kept in _kept(lab, session):
        experiment = kept.experiment
        source = lab.ledger.stored(experiment.candidate_sha256)
        if sha256_hex(source) != experiment.candidate_sha256:
            raise LedgerError(f"The stored train.py of {experiment.id} is not the recorded one. Run `autoresearch verify`.")
        if source == before:
            continue
        message = _message(kept)
        parent = lab.git.commit_with_file(parent, TRAIN_FILE, source, message, int(kept.decided.at))
        before = source
        yield ReviewCommit(commit=parent, subject=message.partition("\n")[0], experiment=experiment)


def _kept(lab: Lab, session: Session) -> Iterator[_Kept]:
    """Yield what was kept, in that order; merges of stale wins are experiments of their own."""
    judged = {event.body["id"]: event for event in lab.ledger.events_of("experiment_judged")}  # the last of each
    runs = lab.ledger.runs_by_experiment("session = ? AND decision = 'kept'", session.tag)
    for decided in lab.ledger.events_of("experiment_kept"):
        if decided.body["session"] == session.tag:
            experiment_id = decided.body["id"]
            ended = [
                run for run in runs.get(experiment_id, ()) if run.finished_at is not None and run.finished_at <= decided.at
            ]
            yield _Kept(
                experiment=lab.ledger.experiment(experiment_id), decided=decided, judged=judged[experiment_id], runs=ended
            )


def _message(kept: _Kept) -> str:
    """Return subject, what the researcher thought, what was measured, and trailers for programs."""
    experiment, judged = kept.experiment, kept.judged.body
    description = one_field(experiment.description)
    title = f"{experiment.id}: {description}"
    subject = textwrap.shorten(title, _SUBJECT_CHARACTERS, placeholder=" ...")
    said = [
        ("Description", description if subject != title else ""),
        ("Hypothesis", experiment.hypothesis),
        ("Measured", judged["reason"]),
        ("Kept because", experiment.note),
    ]
    paragraphs = [_paragraph(what, text) for what, text in said if text.strip()]
    trailers = "\n".join(f"Autoresearch-{name}: {value}" for name, value in _trailers(kept))
    return "\n\n".join([subject, *paragraphs, trailers]) + "\n"


def _paragraph(what: str, text: str) -> str:
    """Return words as one paragraph, indented after its first line, so that none of them looks like a trailer."""
    words = f"{what}: {one_field(text)[:_TEXT_CHARACTERS]}"
    return textwrap.fill(words, _SUBJECT_CHARACTERS, subsequent_indent="  ", break_on_hyphens=False)


def _trailers(kept: _Kept) -> Iterator[tuple[str, str]]:
    experiment, judged = kept.experiment, kept.judged.body
    val_bpb, delta, z = judged["val_bpb"], judged["delta"], judged["z"]
    yield "Experiment", experiment.id
    yield "Session", experiment.session
    yield "Researcher", one_field(experiment.researcher)
    if experiment.parent is not None:
        yield "Parent", experiment.parent
    if experiment.rebase_of is not None:
        yield "Merged-From", experiment.rebase_of
    if delta is not None:
        yield "Val-Bpb-Before", f"{val_bpb - delta:.6f}"
    yield "Val-Bpb", f"{val_bpb:.6f}"
    if delta is not None and z:  # z is the gain in standard errors
        yield "Standard-Error", f"{-delta / z:.6f}"
    if z is not None:
        yield "Z", f"{z:.3f}"
    if kept.runs:
        evidence = weigh(kept.runs)
        runs = 1 if evidence.measurement is None else evidence.measurement.runs
        yield "Runs", f"{runs} ({evidence.confirmations} with fresh seeds)"
    yield "Verdict", judged["verdict"]
    yield "Candidate", experiment.candidate_sha256
    yield "Ledger", kept.decided.previous
