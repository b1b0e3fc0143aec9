"""read_train: a researcher's train.py, or the champion's, for agents that reach no files."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from ..lab import researchers
from ..lab.errors import NotReadyError
from ..lab.files import sha256_hex
from ..lab.lab import Lab
from ..lab.own_file import OwnFile, Standing, own_file, read_own
from ..lab.train_edits import Newlines, newlines_of
from .describe import next_without_experiment, shorten, train_file_of
from .results import Answer, cut_bytes

PAGE_BYTES = 7_000  # of the content, as JSON has it, which is longer
_WORDS_BYTES = 300


class TrainAnswer(Answer):
    """A page of a train.py."""

    file: str = Field(description="Where it lies, or whose it is.")
    sha256: str = Field(description="Of the whole file; edit_train takes it as expected_sha256.")
    about: str = Field(description="What it builds on, and how it differs from that.")
    first_line: int
    last_line: int
    lines: int = Field(description="Of the whole file.")
    newlines: Newlines = Field(description="CRLF is shown as LF, and edit_train keeps it.")
    content: str = Field(description="These lines exactly, with nothing before them: what edit_train takes as old.")
    warnings: list[str]

    def body(self) -> str:
        head = [
            f"{self.file}, {self.lines} lines ({self.newlines}), SHA-256 {self.sha256}",
            self.about,
            *(f"warning: {warning}" for warning in self.warnings),
            f"[lines {self.first_line} to {self.last_line} follow exactly]",
        ]
        end = "" if self.content.endswith("\n") or not self.content else "\n"
        return "\n".join(head) + f"\n{self.content}{end}[end of line {self.last_line} of {self.lines}]"


def read_train(
    lab: Lab,
    researcher: Annotated[str, Field(description="Your name, where several researchers use this server.")] = "",
    first_line: Annotated[int, Field(ge=1, description="Where to begin; an answer names the next page.")] = 1,
    whose: Annotated[Literal["mine", "champion"], Field(description="Your own file, or the champion's.")] = "mine",
) -> TrainAnswer:
    """Read your trainer/train.py, if you cannot open files yourself: a page of it, exactly, and what it builds on.

    Next: edit_train with what it shows, then run_experiment.
    """
    session = lab.session()
    who = researchers.find(lab, session, researcher)
    named = f", researcher={who.name!r}" if researchers.is_ambiguous(lab, session) else ""
    base = who.base or "the file that the session started with"
    if whose == "mine":
        content, file = read_own(lab, who), str(train_file_of(lab, who))
        about = _about(base, own_file(lab, session, who, content))
        calls = next_without_experiment(lab, session, who)
    else:
        if session.champion is None:
            raise NotReadyError("There is no champion yet. Call read_train() for your own file.")
        content, file = lab.champion_source(session), f"train.py of the champion {session.champion}"
        about = "your own file builds on it" if who.base == session.champion else f"your own file builds on {base}"
        calls = [f"read_train({named.removeprefix(', ')})"]
    text, warnings = _decoded(content)
    newlines = newlines_of(text)
    lines = (text.replace("\r\n", "\n") if newlines == "CRLF" else text).split("\n")
    lines = [*(f"{line}\n" for line in lines[:-1]), *([lines[-1]] if lines[-1] else [])]
    if lines and not lines[-1].endswith("\n"):
        warnings.append("The last line has no newline at its end.")
    first = min(first_line, max(1, len(lines)))
    page, cut = _page(lines[first - 1 :])
    last = first + len(page) - 1 if lines else 0
    if cut:
        warnings.append(f"Line {first} is too long for an answer: {cut} bytes of it are left out.")
    if last < len(lines):
        asked = "" if whose == "mine" else ", whose='champion'"
        calls = [f"read_train(first_line={last + 1}{asked}{named})", *calls]
    return TrainAnswer(
        file=file,
        sha256=sha256_hex(content),
        about=about,
        first_line=first,
        last_line=last,
        lines=len(lines),
        newlines=newlines,
        content="".join(page),
        warnings=warnings,
        next=calls,
        ledger_head=lab.ledger.head(),
    )


def _about(base: str, found: OwnFile) -> str:
    words = shorten(found.words, _WORDS_BYTES)
    if found.standing is Standing.UNCHANGED:
        return f"builds on {base}, unchanged"
    if found.standing is Standing.REFUSED:
        return f"builds on {base}; run_experiment would refuse it: {words}"
    if found.tried_as is not None:
        tried = f"{found.tried_as.id} ({found.tried_as.verdict or 'running'}, {found.tried_as.decision})"
        return f"builds on {base}; changed: {words}; these bytes are {tried}"
    if found.repeats is not None:
        return f"builds on {base}; changed: {words}; never run, but {found.repeats.id} was the same idea"
    return f"builds on {base}; changed: {words}" + ("; never run" if found.standing is Standing.UNRUN else "")


def _decoded(content: bytes) -> tuple[str, list[str]]:
    try:
        return content.decode(), []
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        said = f"It is not UTF-8 in line {line}, so it is shown with marks and cannot be edited or run: revert('workspace')."
        return content.decode(errors="replace"), [said]


def _page(lines: list[str]) -> tuple[list[str], int]:
    """Return the first lines that fit into an answer, and how many bytes of the first had to be left out."""
    page: list[str] = []
    room = PAGE_BYTES
    for line in lines:
        room -= len(json.dumps(line, ensure_ascii=False).encode()) - 2
        if room < 0:
            break
        page.append(line)
    if page or not lines:
        return page, 0
    kept = cut_bytes(lines[0], PAGE_BYTES)
    while len(json.dumps(kept, ensure_ascii=False).encode()) > PAGE_BYTES:
        kept = kept[: len(kept) * 9 // 10]
    return [kept], len(lines[0].encode()) - len(kept.encode())
