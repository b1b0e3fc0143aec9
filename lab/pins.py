"""Making the pins of a lab, and which of them a session's runs are checked against.

The first run of a session pins what is there: its harness, its corpus and its environment. From then on a file that was changed
makes runs tainted. What the human changes on purpose is taken over in one of three ways: another torch, Python, corpus or
harness is another comparability group anyway, so the next session pins it; the same bytes in new files (a reinstall, a corpus
prepared again) hold by themselves; the same version with other bytes takes `autoresearch init`, which pins what is there now,
records that, and opens a new group.

Guarantees: the ledger has the SHA-256 of every pins file and of what it covers, so one that was edited or deleted shows. A
session goes on only with an environment of the content that it began with. Does not: vouch for what was there before the first
run; but a corpus must be the one in its manifest, and of packages the published hashes (RECORD) are pinned, so
`autoresearch verify`, which reads every byte, finds what was changed before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..prepare.corpus import Corpus, corpus_path, open_corpus
from ..prepare.errors import PrepareError
from .config import LabConfig
from .environment import trainer_path, trainer_python
from .errors import NotReadyError
from .ledger import Ledger
from .machine import command_path
from .pinned_trees import TreeMaker, add_new_stores, content_digest, corpus_tree, environment_trees
from .records import Session
from .referee.harness import pinned_package
from .referee.pins import Kind, PinnedFile, PinnedTree, Pins, joined, load_pins, mismatches, save_pins

if TYPE_CHECKING:
    from .lab import Lab

_MOST_PROBLEMS = 20  # that are named
_known: dict[str, PinnedFile] = {}  # what this process has pinned, by path: labs share their environment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """An event ``pins_made``: which pins there are, about what, and the digest of the environment's content."""

    sha256: str
    about: dict[str, str]
    content: str
    files: dict[str, int]  # how many of each kind


def pins_of(lab: Lab, session: Session, config: LabConfig) -> str | None:
    """Return the path of the pins that the next run of ``session`` is checked against, making them before its first run.

    ``config`` is the session's. None: the session's harness is from before there were pins, and does not check them.

    Raises:
        NotReadyError: the environment or the corpus is not the one that the session began with, or the corpus is damaged; the
            text names the next step.
    """
    package = pinned_package(lab.state.harness, session.harness)
    if not (package / "lab" / "referee" / "pins.py").exists():
        return None
    about, bound = _about(session.harness, config), _bound(lab, session.tag)
    if bound is not None:
        _require_same_conditions(session, bound.about, about)
    known = _newest(lab, about, None if bound is None else bound.content)
    if known is not None:
        known = _with_new_stores(lab, known)
    else:  # the first run under these conditions, or the first with a Python at this path
        before = bound or _newest_anywhere(lab, about)
        trees = _make(lab, package, config)
        if before is not None and content_digest(trees) != before.content:
            raise NotReadyError(
                f"The environment of {about['python']} has other bytes than the one that was pinned for these versions "
                f"({before.about['python']}), so numbers could not be compared. If that is intended, run "
                f"`{command_path()} init {lab.root}`, which makes it a comparability group of its own; then call start_session."
            )
        known = _record(lab, about, trees)
    if bound is None:
        lab.ledger.append("session_pinned", {"session": session.tag, "pins": known.sha256})
    return str(pins_path(lab, known.sha256))


def renew_pins(lab: Lab) -> str | None:
    """Pin what is there now, for `autoresearch init`; return a sentence where the content of the environment is another.

    Without pins for these conditions nothing is done: the first run makes them. Raises `NotReadyError` where none could start.
    """
    session = lab.ledger.newest_session()
    if session is None:
        return None
    config = lab.session_config(session)
    about = _about(session.harness, config)
    before = _newest_anywhere(lab, about)
    if before is None:
        return None
    trees = _make(lab, pinned_package(lab.state.harness, session.harness), config, before=before)
    known = _record(lab, about, trees)
    if known.content == before.content:
        return None
    lab.ledger.append("environment_adopted", {"python": about["python"], "content": known.content})
    return (
        "Pinned the environment as it is now; its files differ from those pinned before, so its numbers form a new "
        "comparability group."
    )


def adopted_environment(ledger: Ledger, config: LabConfig) -> dict[str, str]:
    """Return what the environment adds to the conditions of a number, once the human has adopted a changed one."""
    events, path = ledger.events_of("environment_adopted"), trainer_path(config.trainer.python)
    adopted = [event.body["content"] for event in events if event.body["python"] == path]
    return {"environment": adopted[-1][:16]} if adopted else {}


def verify_pins(lab: Lab) -> tuple[list[str], str]:
    """Read every pinned byte of the newest session again; return what does not hold, and a sentence on what was looked at."""
    session = lab.ledger.newest_session()
    bound = None if session is None else _bound(lab, session.tag)
    if session is None or bound is None:
        return [], "No file is pinned yet: the first run of a session does that."
    known = _newest(lab, bound.about, bound.content) or bound
    try:
        about = _about(session.harness, lab.session_config(session))
        _require_same_conditions(session, bound.about, about)
        known = _newest(lab, about, bound.content) or known
    except NotReadyError as error:
        if _is_corpus_there(bound.about["corpus"]):
            return [], f"The pinned files of session {session.tag} were not read. {error}"
    found = mismatches(str(pins_path(lab, known.sha256)), read_everything=True)
    problems = list(itertools.islice(found, _MOST_PROBLEMS))
    if (more := sum(1 for _ in found)) > 0:
        problems.append(f"{more} more pinned files do not hold.")
    counts = {kind: count for kind, count in known.files.items() if count}
    looked_at = ", ".join(f"{count} of the {kind}" for kind, count in counts.items())
    if Kind.ENVIRONMENT not in counts:
        looked_at += "; the environment by its versions only, because it does not say what it consists of"
    return problems, f"Files pinned for session {session.tag}: {looked_at}."


def pins_path(lab: Lab, sha256: str) -> Path:
    return lab.state.pins / f"{sha256}.json"


# -- which pins -----------------------------------------------------------------------------------------------------------


def _about(harness: str, config: LabConfig) -> dict[str, str]:
    """Return what pins are about: with another of these, numbers are of another comparability group; but for the path."""
    python = trainer_python(config.trainer.python)
    return {
        "harness": harness,
        "corpus": config.corpus_name,
        "corpus_id": open_prepared_corpus(config.corpus_name).corpus_id,
        "python": python.path,
        "version": python.python,
        "torch": python.torch,
    }


def open_prepared_corpus(name: str) -> Corpus:
    """Open a corpus; raises `NotReadyError` with the command that prepares it.

    An agent's shell has no virtual environment on its path, so the program is named as it can be called.
    """
    try:
        return open_corpus(name)
    except PrepareError as error:
        raise NotReadyError(str(error).replace("`autoresearch ", f"`{command_path()} ")) from error


def _is_corpus_there(name: str) -> bool:
    return corpus_path(name).is_dir()


def _without_path(about: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in about.items() if name != "python"}


def _require_same_conditions(session: Session, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [f"{name} {before[name]} -> {now[name]}" for name in _without_path(now) if before[name] != now[name]]
    if changed:
        raise NotReadyError(
            f"Session {session.tag} began under other conditions ({', '.join(changed)}), so new numbers could not be compared "
            "with its own. Call start_session with a new tag."
        )


def _bound(lab: Lab, tag: str) -> _Made | None:
    """Return the pins that the first run of a session was checked against."""
    for event in lab.ledger.events_of("session_pinned"):
        if event.body["session"] == tag:
            return next(made for made in _made(lab) if made.sha256 == event.body["pins"])
    return None


def _newest(lab: Lab, about: Mapping[str, str], content: str | None) -> _Made | None:
    found = [made for made in _made(lab) if made.about == about and content in (None, made.content)]
    return found[-1] if found else None


def _newest_anywhere(lab: Lab, about: Mapping[str, str]) -> _Made | None:
    """Return the newest pins under these conditions, wherever the Python lies; at the same path, if there are such."""
    found = [made for made in _made(lab) if _without_path(made.about) == _without_path(about)]
    return _newest(lab, about, None) or (found[-1] if found else None)


def _made(lab: Lab) -> Iterator[_Made]:
    for event in lab.ledger.events_of("pins_made"):
        yield _Made(**event.body)


def _with_new_stores(lab: Lab, known: _Made) -> _Made:
    """Return pins that also have the token stores which were made since; all else stays pinned as it was."""
    pins, corpus = load_pins(pins_path(lab, known.sha256)), open_prepared_corpus(known.about["corpus"])
    if pins is None:
        return known  # missing or edited: the run will say so
    trees = [add_new_stores(tree, corpus) if tree.kind is Kind.CORPUS else tree for tree in pins.trees]
    return known if trees == list(pins.trees) else _record(lab, known.about, trees)


# -- making them ----------------------------------------------------------------------------------------------------------


def _make(lab: Lab, package: Path, config: LabConfig, *, before: _Made | None = None) -> list[PinnedTree]:
    """Pin what is there now. Of files that are as they were ``before``, the hashes stay."""
    known: Mapping[str, PinnedFile] = _known
    if before is not None:
        pins = load_pins(pins_path(lab, before.sha256))
        known = {} if pins is None else _files(pins.trees)
    maker = TreeMaker(known=known, trust_records=before is None)
    harness = maker.tree(Kind.HARNESS, package, f"remove {package.parent}, run `autoresearch init` and begin a new session")
    trees = [
        harness,
        corpus_tree(maker, open_prepared_corpus(config.corpus_name)),
        *environment_trees(maker, config.trainer.python),
    ]
    if before is None:
        _known.update({path: pin for path, pin in _files(trees).items() if pin.signature is not None})
    return trees


def _record(lab: Lab, about: dict[str, str], trees: Sequence[PinnedTree]) -> _Made:
    """Write the pins, and their event."""
    path = save_pins(Pins(trees=tuple(trees)), lab.state.pins)
    files = {kind.value: sum(len(tree.files) for tree in trees if tree.kind is kind) for kind in Kind}
    made = _Made(sha256=path.stem, about=about, content=content_digest(trees), files=files)
    lab.ledger.append("pins_made", asdict(made))
    return made


def _files(trees: Iterable[PinnedTree]) -> dict[str, PinnedFile]:
    return {joined(tree.root, name): pin for tree in trees for name, pin in tree.files.items()}
