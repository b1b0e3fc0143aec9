"""Whether an idea was tried before: the same constants changed the same way, and the same code beside them.

Code is compared without comments, blank lines and spacing, in its place: two ideas that put one line at different places
differ. Guarantees: a refusal names the earlier experiment and what came of it, costs no device time, and says how to insist;
what differs in any other way is let through, and so is what was cancelled, lost, or measured in doubt. Only what the session
itself has tried is refused: a new one may ask everything anew, and a repetition of another's is worth a remark.
Does not: understand an idea. The same thought in other code is remarked on at most, by its words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from . import researchers
from .candidate import changed_constants, check_candidate, unified_diff
from .confirmation import doubt_of
from .errors import CandidateError
from .records import Experiment, Researcher, Session
from .search import similar_texts
from .states import NO_ANSWER, Decision
from .themes import changed_lines

if TYPE_CHECKING:
    from .lab import Lab

Changes = Mapping[str, tuple[str | None, str | None]]

_SAME_STEP = 0.2  # two steps are one when they begin and end within this share of the shorter one
_MOST_COMPARED = 200  # experiments whose code is looked at, the newest
_LINES_APART = 3  # that the same change of code may differ by in length, for comments and blank lines
_WORDS_ALIKE = 0.9  # similarity of two texts' words, from 0 to 1
_LEAST_WORDS = 5  # different ones; shorter texts are like many others
_MOST_TEXTS = 10  # that fit best, which are compared word by word
_QUOTED_CHARACTERS = 200

_NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*")
_WILD = re.compile("[%_!]")  # what LIKE does not take as it stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """What a candidate does to its parent: the constants that it changes, and the lines of code beside them."""

    constants: Changes
    added: Counter[str]
    removed: Counter[str]
    before: bytes
    after: bytes

    @classmethod
    def of(cls, constants: Changes, before: bytes, after: bytes) -> Idea:
        added, removed = (Counter(_code(lines, constants)) for lines in changed_lines(before, after))
        return cls(constants=constants, added=added, removed=removed, before=before, after=after)


def require_new(lab: Lab, session: Session, who: Researcher, parent: Experiment, source: bytes) -> None:
    """Refuse a researcher's candidate whose idea has an answer in this session, or is being tried.

    Raises `CandidateError`, also for what cannot be a candidate.
    """
    if (earlier := tried_before(lab, session, parent, source)) is not None:
        named = f", researcher={who.name!r}" if researchers.is_ambiguous(lab, session) else ""
        raise CandidateError(
            f"This idea {in_words(earlier)}{_elsewhere(earlier, parent)} No device time was used. Try something else, or "
            f"insist with run_experiment(description='...', hypothesis='...'{named}, again=True)."
        )


def tried_before(lab: Lab, session: Session, parent: Experiment, source: bytes) -> Experiment | None:
    """Return the newest experiment of the session that is the same idea, on whichever parent; None: it is new.

    Raises `CandidateError` for what cannot be a candidate.
    """
    idea = idea_of(lab.ledger.stored(parent.candidate_sha256), source)
    return next(_alike(lab, "session = ?", (session.tag,), idea), None)


def remarks(lab: Lab, experiment: Experiment) -> list[str]:
    """Return what to say of a new experiment: which one it repeats all the same, or is described like."""
    if experiment.parent is None:
        return []
    parent = lab.ledger.experiment(experiment.parent)
    idea = idea_of(*(lab.ledger.stored(each.candidate_sha256) for each in (parent, experiment)))
    session = lab.ledger.session_now(experiment.session)
    others = 'id != ? AND session IN (SELECT tag FROM sessions WHERE "group" = ?)'
    if (same := next(_alike(lab, others, (experiment.id, session.group), idea), None)) is not None:
        return [f"This idea {in_words(same)}{_elsewhere(same, parent)}"]
    if (like := _said_before(lab, experiment)) is not None:
        return [f"Its description is nearly that of another idea, which {in_words(like)}"]
    return []


def in_words(experiment: Experiment) -> str:
    """Return what came of an experiment, as the rest of a sentence about it, and a lesson where there is one."""
    what = f"{experiment.id} (session {experiment.session}, on {experiment.parent}): {_short(experiment.description)}"
    if experiment.verdict is None:
        return f"is being tried as {what}. wait_experiment('{experiment.id}') tells what comes of it."
    delta = "" if experiment.delta is None else f", {experiment.delta:+.4f} bpb"
    decision = "undecided" if experiment.decision is Decision.PENDING else str(experiment.decision)
    learned = f" Its note: {_short(experiment.note)}." if experiment.note.strip() else ""
    return f"was tried as {what}. It was {experiment.verdict}{delta}, and is {decision}.{learned}"


def idea_of(before: bytes, after: bytes) -> Idea:
    """Return what ``after`` does to its parent ``before``; raises `CandidateError` for what cannot be a candidate."""
    child = check_candidate(after, before)
    return Idea.of(changed_constants(check_candidate(before, None), child), before, after)


def same_idea(one: Idea, other: Idea) -> bool:
    """True where two ideas change the same constants the same way, and the same code; what changes neither is no idea."""
    if not same_changes(one.constants, other.constants) or (one.added, one.removed) != (other.added, other.removed):
        return False
    if one.added or one.removed:
        return _hunks(one) == _hunks(other)
    return bool(one.constants)


def same_changes(one: Changes, other: Changes) -> bool:
    """True where two ideas change the same constants, each from nearly the same value to nearly the same one."""
    return one.keys() == other.keys() and all(_same_step(one[name], other[name]) for name in one)


def same_words(one: str, other: str) -> bool:
    """True for two texts that say nearly the same in nearly the same order, and name the same numbers."""
    words, others = (_WORD.findall(text.casefold()) for text in (one, other))
    if min(len(set(words)), len(set(others))) < _LEAST_WORDS:
        return False
    numbers, other_numbers = (Counter(word for word in each if any(map(str.isdigit, word))) for each in (words, others))
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    return numbers == other_numbers and matcher.quick_ratio() >= _WORDS_ALIKE and matcher.ratio() >= _WORDS_ALIKE


def _alike(lab: Lab, where: str, values: tuple[str, ...], idea: Idea) -> Iterator[Experiment]:
    """Yield the experiments that are the same idea and have an answer, or are being tried; the newest first."""
    if not (idea.constants or idea.added or idea.removed):
        return
    parents: dict[str, bytes | None] = {}
    for experiment in _candidates(lab, where, values, idea):
        if experiment.parent is None or experiment.verdict in NO_ANSWER:
            continue
        if not same_changes(idea.constants, experiment.changes):
            continue
        if experiment.parent not in parents:
            parents[experiment.parent] = lab.ledger.blob(lab.ledger.experiment(experiment.parent).candidate_sha256)
        before, after = parents[experiment.parent], lab.ledger.blob(experiment.candidate_sha256)
        if before is None or after is None:  # `verify` names what is gone
            continue
        if same_idea(idea, Idea.of(experiment.changes, before, after)) and not doubt_of(
            experiment, lab.ledger.runs(experiment.id)
        ):
            yield experiment


def _candidates(lab: Lab, where: str, values: tuple[str, ...], idea: Idea) -> list[Experiment]:
    """Return experiments that may be the same idea by what the record says of them, the newest first."""
    if idea.constants:
        first = _WILD.sub(r"!\g<0>", min(idea.constants))  # the record has them in order
        like = f'{{"{first}": [%'
        return lab.ledger.experiments(
            f"{where} AND changes LIKE ? ESCAPE '!'", *values, like, order="rowid DESC", limit=_MOST_COMPARED
        )
    diff = unified_diff(idea.before, idea.after).splitlines()[2:]
    counts = [sum(line.startswith(mark) for line in diff) for mark in "+-"]
    near = "added BETWEEN ? AND ? AND removed BETWEEN ? AND ?"
    bounds = [count + apart for count in counts for apart in (-_LINES_APART, _LINES_APART)]
    return lab.ledger.experiments(
        f"{where} AND changes = '{{}}' AND {near}", *values, *bounds, order="rowid DESC", limit=_MOST_COMPARED
    )


def _said_before(lab: Lab, experiment: Experiment) -> Experiment | None:
    """Return another experiment with a number that was described in nearly the same words."""
    text = f"{experiment.description} {experiment.hypothesis}"
    for other_id in similar_texts(lab.ledger, lab.state.search_index, text, limit=_MOST_TEXTS):
        other = lab.ledger.experiment(other_id)
        if other.id == experiment.id or other.val_bpb is None or other.parent is None:
            continue
        if same_words(text, f"{other.description} {other.hypothesis}"):
            return other
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:_QUOTED_CHARACTERS].rstrip(" .")


def _elsewhere(earlier: Experiment, parent: Experiment) -> str:
    if earlier.parent == parent.id:
        return ""
    return f" Yours builds on {parent.id}, where it may turn out otherwise."


def _hunks(idea: Idea) -> list[str]:
    """Return the diff of an idea's code with the code around it, without line numbers."""
    before, after = (
        "\n".join(_code(source.decode(errors="replace").splitlines(), idea.constants)).encode()
        for source in (idea.before, idea.after)
    )
    return [line for line in unified_diff(before, after).splitlines()[2:] if not line.startswith("@@")]


def _code(lines: list[str], constants: Changes) -> list[str]:
    """Return lines without comments, blank lines, spacing within, and the assignments of constants."""
    kept = []
    for line in lines:
        text = _without_comment(line).rstrip()
        indent = len(text) - len(text.lstrip())
        words = text.split()
        if words and not (indent == 0 and words[0].partition(":")[0].partition("=")[0] in constants):
            kept.append(" " * indent + " ".join(words))
    return kept


def _without_comment(line: str) -> str:
    """Return a line up to a "#" that stands first or after a space, which is nearly always a comment."""
    place = line.find("#")
    while place > 0 and not line[place - 1].isspace():
        place = line.find("#", place + 1)
    return line if place < 0 else line[:place]


def _same_step(one: tuple[str | None, str | None], other: tuple[str | None, str | None]) -> bool:
    """True where two changes of one constant are one step: the same texts, or numbers that are near for such a step."""
    if one == other:
        return True
    if None in one or None in other:
        return False
    texts = [str(text) for text in (*one, *other)]
    if len({_NUMBER.sub("#", text) for text in texts}) > 1:
        return False
    columns = zip(*([float(number.replace("_", "")) for number in _NUMBER.findall(text)] for text in texts), strict=True)
    return all(_near(*column) for column in columns)


def _near(old: float, new: float, other_old: float, other_new: float) -> bool:
    """True where two steps lead the same way and end at the same number, or begin and end near each other.

    Distances are those of logarithms; of odds where all numbers lie between 0 and 1, so that 0.99 is not near 0.999.
    """
    ways = [(end > start) - (end < start) for start, end in ((old, new), (other_old, other_new))]
    if ways[0] != ways[1]:
        return False
    if ways[0] == 0 or new == other_new:
        return True
    values = (old, new, other_old, other_new)
    if all(0 < value < 1 for value in values):
        values = tuple(math.log(value / (1 - value)) for value in values)
    elif all(0 < value < math.inf for value in values):
        values = tuple(math.log(value) for value in values)
    apart = _SAME_STEP * min(abs(values[1] - values[0]), abs(values[3] - values[2]))
    return abs(values[0] - values[2]) <= apart and abs(values[1] - values[3]) <= apart
