"""Edits of train.py as text: one exact replacement, or a unified diff. Pure functions over bytes.

Guarantees: an edit happens wholly or not at all; bytes outside of it stay exact; an edit that could mean two places is refused,
with the lines it could mean. A file whose lines all end in CRLF keeps them, and a leading byte-order mark stays, whichever way
the edit spells its newlines: only an edit that itself holds a carriage return or a mark is taken to the byte.

A diff may be careless where its meaning is certain: wrong line numbers, wrong or no counts in `@@`, no file headers, fences
around it, an empty line for an empty line of context, no mark about a missing last newline. Its context must be the file's, to
the letter.

Does not: read or write a file, or judge whether the result could run (see `candidate`).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from .candidate import CandidateFacts, changed_constants, check_candidate, unified_diff
from .errors import CandidateError
from .paths import TRAIN_FILE

Newlines = Literal["LF", "CRLF", "mixed", "none"]

_BOM = "\ufeff"
_MOST_PLACES = 5  # named in an error
_MOST_COUNTED = 100  # a file of one letter has it at every place, and to find them all takes minutes
_LINE_CHARACTERS = 160  # of a line that is quoted in an error
_MOST_CONSTANTS = 4
_MOST_COMPARED = 100  # lines of a hunk that is nowhere, to say where it nearly is
_VALUE_CHARACTERS = 24
_NAMES = frozenset({TRAIN_FILE, TRAIN_FILE.rpartition("/")[2]})
_HUNK = re.compile(r"@@ -(?P<start>\d{1,9})(?:,(?P<count>\d{1,9}))? \+\d{1,9}(?:,(?P<new_count>\d{1,9}))?(?: ?@@.*| *)")
_NAMES_LINE = re.compile(r"diff --git (?P<old>\S+) (?P<new>\S+)$|Index: (?P<index>.+)$")
_PREAMBLE = re.compile(r"index [0-9a-f]+\.\.|=+$|```|\s*$")
_OTHER_CHANGE = re.compile(
    r"@@@|diff |new file|deleted file|old mode|new mode|rename |copy |similarity |GIT binary|Binary files |\*\*\* "
)
_NO_NEWLINE = "\\"


def replace_once(source: bytes, old: str, new: str) -> bytes:
    """Return ``source`` with ``new`` in the one place where ``old`` is.

    Raises:
        CandidateError: ``old`` is empty, equals ``new``, or is there more than once or not at all; the text says where it is,
            or which line is nearest.
    """
    view = _View.of(source, old, new)
    if not old:
        raise CandidateError("old is empty: give the text to replace, as read_train shows it.")
    if old == new:
        raise CandidateError("old and new are the same, so nothing would change.")
    places = list(islice(_places(view.text, old), _MOST_COUNTED))
    if len(places) == 1:
        return view.bytes(view.text[: places[0]] + new + view.text[places[0] + len(old) :])
    if places:
        lines = [view.text.count("\n", 0, place) + 1 for place in places]
        raise CandidateError(
            f"old is there {_times(places)} (from lines {_listed(lines)}), and must be there once; nothing was changed. "
            "Give more of the lines around the one you mean."
        )
    raise CandidateError(f"old is there 0 times; nothing was changed. {_nearest(view.text, old)}")


def apply_patch(source: bytes, patch: str) -> bytes:
    """Return ``source`` after all hunks of a unified diff.

    A hunk is where its context and its removed lines are: at the line that it names, else at the only place where they are.

    Raises:
        CandidateError: no unified diff of train.py; a hunk that is nowhere or could be in several places; hunks that overlap or
            are out of order; or nothing would change.
    """
    view = _View.of(source, patch)
    lines, ended = _split(view.text)
    bounded = _bounded(lines)
    hunks = _parse(patch)
    if not any(hunk.old != hunk.new or hunk.old_ended != hunk.new_ended for hunk in hunks):
        raise CandidateError("The patch changes nothing: it has no lines that begin with + or -.")
    result: list[str] = []
    done = 0
    for number, hunk in enumerate(hunks, start=1):
        place = _locate(hunk, lines, bounded, ended, number, done)
        result += lines[done:place] + hunk.merged(lines[place : place + len(hunk.old)])
        done = place + len(hunk.old)
        if done == len(lines):
            ended = hunk.ends(ended)
    result += lines[done:]
    return view.bytes("\n".join(result) + ("\n" if result and ended else ""))


def change_in_words(parent: bytes, child: bytes) -> str:
    """Return what differs in less than a line: the constants, and how many lines; empty where nothing does."""
    if parent == child:
        return ""
    diff = unified_diff(parent, child).split("\n")[2:]
    added, removed = (sum(line.startswith(mark) for line in diff) for mark in "+-")
    constants: list[str] = []
    old, new = _facts(parent), _facts(child)
    if old is not None and new is not None:
        for name, (before, after) in changed_constants(old, new).items():
            constants.append(f"{name} {_value(before)} -> {_value(after)}")
    more = [f"{len(constants) - _MOST_CONSTANTS} more constants"] if len(constants) > _MOST_CONSTANTS else []
    return ", ".join([*constants[:_MOST_CONSTANTS], *more, f"{added} lines added, {removed} removed"])


def newlines_of(text: str) -> Newlines:
    """Say how the lines of a text end; "none": it has one line without an end."""
    both, line_feeds, returns = (text.count(end) for end in ("\r\n", "\n", "\r"))
    if not line_feeds and not returns:
        return "none"
    if not returns:
        return "LF"
    return "CRLF" if both == line_feeds == returns else "mixed"


def _facts(source: bytes) -> CandidateFacts | None:
    try:
        return check_candidate(source, None)
    except CandidateError:
        return None


def _value(text: str | None) -> str:
    flat = "none" if text is None else " ".join(text.split())
    return flat if len(flat) <= _VALUE_CHARACTERS else flat[: _VALUE_CHARACTERS - 3] + "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A file as an edit sees it: its text, without what the edit does not spell."""

    text: str
    has_bom: bool
    is_crlf: bool

    @classmethod
    def of(cls, source: bytes, *edits: str) -> _View:
        try:
            text = source.decode()
        except UnicodeDecodeError as error:
            line = source.count(b"\n", 0, error.start) + 1
            raise CandidateError(f"train.py is not UTF-8 in line {line}, so it cannot be edited as text.") from None
        spelled = "".join(edits)
        try:
            spelled.encode()
        except UnicodeEncodeError as error:
            raise CandidateError(f"The edit has {spelled[error.start]!a}, which is no character: leave it out.") from None
        has_bom = text.startswith(_BOM) and _BOM not in spelled
        is_crlf = "\r" not in spelled and newlines_of(text) == "CRLF"
        text = text.removeprefix(_BOM) if has_bom else text
        return cls(text=text.replace("\r\n", "\n") if is_crlf else text, has_bom=has_bom, is_crlf=is_crlf)

    def bytes(self, text: str) -> bytes:
        text = text.replace("\n", "\r\n") if self.is_crlf else text
        return (f"{_BOM}{text}" if self.has_bom else text).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hunk:
    """A hunk: pairs of a mark (" ", "-" or "+") and a line without its newline, and what it says about the last newline."""

    start: int | None  # the line of the old file that it names, from 1
    body: list[tuple[str, str]] = field(default_factory=list)
    old_ended: bool = True  # False: the last old line is said to have no newline
    new_ended: bool = True

    @property
    def old(self) -> list[str]:
        return [line for mark, line in self.body if mark != "+"]

    @property
    def new(self) -> list[str]:
        return [line for mark, line in self.body if mark != "-"]

    def merged(self, there: Sequence[str]) -> list[str]:
        """Return the new lines, with context as it is in the file."""
        kept = iter(there)
        result: list[str] = []
        for mark, line in self.body:
            if mark == "+":
                result.append(line)
                continue
            original = next(kept)
            if mark == " ":
                result.append(original)
        return result

    def ends(self, ended: bool) -> bool:
        """Say whether the file's last line has a newline after this hunk, which reaches the end of the file."""
        said = not (self.old_ended and self.new_ended)
        keeps_last = not self.body or self.body[-1][0] == " "
        return ended if keeps_last and not said else self.new_ended


def _parse(patch: str) -> list[_Hunk]:
    """Return the hunks of a patch, in order."""
    lines = patch.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    hunks: list[_Hunk] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        if line.startswith("--- ") and position + 1 < len(lines) and lines[position + 1].startswith("+++ "):
            for named_file in lines[position : position + 2]:
                _require_train_py(named_file[4:])
            position += 2
        elif line.startswith("@@") and not line.startswith("@@@"):
            header = _HUNK.fullmatch(line)  # one without line numbers is found by its lines
            end = _end_of_hunk(lines, position + 1, header)
            hunks.append(_hunk(header, lines[position + 1 : end], position + 2))
            position = end
        elif (named := _NAMES_LINE.match(line)) is not None:
            for name in filter(None, named.groups()):
                _require_train_py(name)
            position += 1
        elif _OTHER_CHANGE.match(line):
            raise CandidateError(
                f"Line {position + 1} of the patch says {_quoted(line)}: only a unified diff of the lines of {TRAIN_FILE} is "
                "applied. Nothing was changed."
            )
        elif _PREAMBLE.match(line):
            position += 1
        else:
            raise CandidateError(
                f"Line {position + 1} of the patch is outside of a hunk: {_quoted(line)}. Give a unified diff: lines of "
                "context begin with a space, removed ones with -, added ones with +, after a line @@ -12,7 +12,8 @@."
            )
    if not hunks:
        raise CandidateError("The patch has no hunk (no line begins with @@): give a unified diff, or old and new.")
    return hunks


def _end_of_hunk(lines: Sequence[str], first: int, header: re.Match[str] | None) -> int:
    """Return where a hunk's body ends: where its counts say, if that can be, else before what begins something else."""
    if header is not None:
        old, new = (1 if header[name] is None else int(header[name]) for name in ("count", "new_count"))
        position = first
        while position < len(lines) and (old > 0 or new > 0):
            mark = lines[position][:1] or " "
            if mark not in " +-\\":
                break
            old -= mark in " -"
            new -= mark in " +"
            position += 1
        while position < len(lines) and lines[position].startswith(_NO_NEWLINE):
            position += 1
        if old == new == 0 and (position == len(lines) or _begins_other(lines, position)):
            return position
    end = first
    while end < len(lines) and not _begins_other(lines, end, but_blank=True):
        end += 1
    while end > first and not lines[end - 1]:  # blank lines after a patch; as context they are not needed
        end -= 1
    return end


def _begins_other(lines: Sequence[str], position: int, *, but_blank: bool = False) -> bool:
    line = lines[position]
    if line.startswith(("@@", "diff ", "```", "Index: ", "*** ")):
        return True
    if line.startswith("--- ") and position + 1 < len(lines) and lines[position + 1].startswith("+++ "):
        return position + 2 < len(lines) and lines[position + 2].startswith("@@")
    return not but_blank and not line


def _hunk(header: re.Match[str] | None, body: Sequence[str], first: int) -> _Hunk:
    pairs: list[tuple[str, str]] = []
    ended = {"-": True, "+": True}
    for number, line in enumerate(body, start=first):
        mark = line[:1] or " "
        if mark == _NO_NEWLINE and pairs:
            for side in "-+" if pairs[-1][0] == " " else pairs[-1][0]:
                ended[side] = False
        elif mark in " -+":
            pairs.append((mark, line[1:]))
        else:
            raise CandidateError(
                f"Line {number} of the patch, {_quoted(line)}, begins with neither a space, + nor -: a line of context begins "
                "with a space before its own indentation. Nothing was changed."
            )
    start = None if header is None else int(header["start"])
    if header is not None and start is not None and all(mark == "+" for mark, _ in pairs):
        start = start + 1 if header["count"] == "0" else None  # it names the line before; without context no other says where
    return _Hunk(start=start, body=pairs, old_ended=ended["-"], new_ended=ended["+"])


def _locate(hunk: _Hunk, lines: list[str], text: str, ended: bool, number: int, done: int) -> int:
    """Return the index of the first line of a hunk in the file, whose lines ``text`` has as `_bounded` does."""
    old = hunk.old
    if not old:
        if not lines:
            return 0
        if hunk.start is None or not done <= hunk.start - 1 <= len(lines):
            raise CandidateError(
                f"Hunk {number} has no line of context, so its place is not certain; nothing was changed. Add a line that is "
                "before or after it."
            )
        return hunk.start - 1
    size = len(old)
    if not hunk.old_ended:  # it says that it is at the end of a file without a last newline
        places = [len(lines) - size] if lines[-size:] == old and not ended else []
    elif hunk.start is not None and hunk.start - 1 >= done and lines[hunk.start - 1 : hunk.start - 1 + size] == old:
        return hunk.start - 1
    else:
        found = islice(_places(text, _bounded(old)), _MOST_COUNTED)
        places = [text.count("\n", 0, place) for place in found]
    after = [place for place in places if place >= done]
    if len(after) == 1 and len(places) == 1:
        return after[0]
    if len(places) > 1:
        raise CandidateError(
            f"The lines of hunk {number} are there {_times(places)} (from lines "
            f"{_listed([place + 1 for place in places])}), and its line number is none of them; nothing was changed. Give more "
            "context, or the right line number."
        )
    if places:
        raise CandidateError(
            f"Hunk {number} is at line {places[0] + 1}, in or before the hunk ahead of it; nothing was changed. Put the hunks "
            "in the order of the file, and join those that overlap."
        )
    raise CandidateError(f"Hunk {number} is nowhere in the file; nothing was changed. {_mismatch(hunk, lines)}")


def _mismatch(hunk: _Hunk, lines: list[str]) -> str:
    """Say which line of a hunk is not as the file has it, where it fits best."""
    old = hunk.old
    if not hunk.old_ended:
        return "It says that the file has no newline at its end there."
    fits: Counter[int] = Counter()  # how many lines with words agree, by the place of the hunk's first line
    for index, line in enumerate(old[:_MOST_COMPARED]):
        if line.strip():
            fits.update(number - index for number, there in enumerate(lines) if there == line)
    if fits:
        best = max(fits, key=lambda place: (fits[place], -place))
        for index, line in enumerate(old):
            if not 0 <= best + index < len(lines):
                return f"The file has {len(lines)} lines; {_quoted(line)} would be line {best + index + 1}. See read_train."
            if lines[best + index] != line:
                return f"It has {_quoted(line)}, where line {best + index + 1} of the file is {_quoted(lines[best + index])}."
    return _nearest("\n".join(lines), next((line for line in old if line.strip()), ""))


def _nearest(text: str, old: str) -> str:
    """Say which line of the file is most like the first line of ``old`` that has words."""
    wanted = next((line.strip() for line in old.split("\n") if line.strip()), "")
    best, likeness = 0, 0.0
    matcher = difflib.SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted[:_LINE_CHARACTERS])
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        matcher.set_seq1(line.strip()[:_LINE_CHARACTERS])
        if wanted and matcher.real_quick_ratio() > likeness and matcher.quick_ratio() > likeness and matcher.ratio() > likeness:
            best, likeness = number, matcher.ratio()
    if not best:
        return "Copy the text from read_train."
    same = "its spaces or the lines after it differ" if lines[best - 1].strip() == wanted else "copy the text from read_train"
    return f"Nearest is line {best}: {_quoted(lines[best - 1])}; {same}."


def _require_train_py(header: str) -> None:
    """Refuse a file header that does not name train.py."""
    name = header.partition("\t")[0].strip().strip('"')
    plain = name[2:] if name.startswith(("a/", "b/")) else name.removeprefix("./")
    if plain not in _NAMES:
        raise CandidateError(f"The patch is for {_quoted(name)}; only {TRAIN_FILE} can be edited, and nothing was changed.")


def _places(text: str, old: str) -> Iterator[int]:
    """Yield where ``old`` begins in ``text``, places that overlap included."""
    place = text.find(old)
    while place >= 0:
        yield place
        place = text.find(old, place + 1)


def _bounded(lines: Sequence[str]) -> str:
    """Return lines with a newline before and after each, so that whole lines can be found as text."""
    return "\n".join(["", *lines, ""]) if lines else ""


def _split(text: str) -> tuple[list[str], bool]:
    """Return the lines of a text without their newlines, and whether the last has one."""
    lines = text.split("\n")
    return (lines[:-1], True) if not lines[-1] else (lines, False)


def _times(places: Sequence[int]) -> str:
    return f"{len(places)} times" + (" or more" if len(places) == _MOST_COUNTED else "")


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_PLACES]))
    return f"{shown} and more" if len(numbers) > _MOST_PLACES else shown


def _quoted(line: str) -> str:
    return repr(line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 3] + "...")
