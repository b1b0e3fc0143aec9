"""edit_train: change a researcher's train.py, for agents that reach no files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..lab import researchers
from ..lab.candidate import MAX_SOURCE_BYTES, check_candidate, unified_diff
from ..lab.errors import CandidateError
from ..lab.files import sha256_hex
from ..lab.lab import Lab
from ..lab.own_file import edit_own, own_file, parent_of
from ..lab.train_edits import apply_patch, replace_once
from .describe import clean, next_without_experiment, run_call, shorten, train_file_of, undecided
from .results import Answer, cut_bytes

_DIFF_BYTES = 3_000
_WORDS_BYTES = 300


class EditAnswer(Answer):
    """What an edit made of a train.py."""

    file: str
    sha256: str = Field(description="Of the whole file now; the next edit_train takes it as expected_sha256.")
    lines: int
    builds_on: str = Field(description="The champion that the file builds on, and its experiment is judged against.")
    refusal: str | None = Field(description="Why run_experiment would refuse the file as it is now; null: it would not.")
    diff: str = Field(description="Against what the file builds on, all edits together.")
    omitted: str = Field(description="What was left out of the diff, and how to get it.")
    backup: str | None = Field(
        description="Git ref of what the file held, where nothing else has those bytes; null: none needed."
    )
    warnings: list[str]

    def body(self) -> str:
        lines = [f"{self.file} is written: {self.lines} lines, SHA-256 {self.sha256}"]
        if self.refusal is not None:
            lines.append(f"run_experiment would refuse it as it is: {self.refusal}")
        if self.backup is not None:
            lines.append(f"What it held, which was never run, is saved as {self.backup}.")
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"against {self.builds_on}:", self.diff or "(no difference)"]
        return "\n".join([*lines, *([f"[{self.omitted}]"] if self.omitted else [])])


def edit_train(
    lab: Lab,
    old: Annotated[
        str,
        Field(description="Text that is in the file exactly once, as read_train shows it.", max_length=MAX_SOURCE_BYTES),
    ] = "",
    new: Annotated[str, Field(description="What to put in its place; empty: remove it.", max_length=MAX_SOURCE_BYTES)] = "",
    patch: Annotated[
        str,
        Field(
            description="Instead of old and new: a unified diff of train.py, applied wholly or not.",
            max_length=2 * MAX_SOURCE_BYTES,
        ),
    ] = "",
    expected_sha256: Annotated[
        str,
        Field(
            description="Refuse where the file has another SHA-256 (its first 8 digits or more): somebody changed it.",
            pattern="^([0-9a-f]{8,64})?$",
        ),
    ] = "",
    researcher: Annotated[str, Field(description="Your name, where several researchers use this server.")] = "",
) -> EditAnswer:
    """Change your trainer/train.py, if you cannot write files yourself: either old and new, or a patch. Nothing is run.

    read_train shows the text to change. Next: run_experiment; revert('workspace') takes all edits back.
    """
    if bool(patch) == bool(old or new):
        raise CandidateError("Give either old and new (one exact replacement) or patch (a unified diff); nothing was changed.")
    session = lab.session()
    who = researchers.at_work(lab, session, researcher)

    def change(source: bytes) -> bytes:
        return apply_patch(source, patch) if patch else replace_once(source, old, new)

    edited = edit_own(lab, session, who, change, expected_sha256=expected_sha256)
    session = lab.ledger.session_now(session.tag)
    who = researchers.find(lab, session, who.name)
    parent = parent_of(lab, session, who)
    refusal, warnings = None, list[str]()
    try:
        warnings += check_candidate(edited.content, parent).warnings
    except CandidateError as error:
        refusal = str(error)
    whole = clean(unified_diff(parent, edited.content))
    diff = cut_bytes(whole, _DIFF_BYTES)
    calls = next_without_experiment(lab, session, who)
    waiting = [experiment.id for experiment in undecided(lab, session, who)]
    own = own_file(lab, session, who, edited.content)
    if waiting and refusal is None and own.tried_as is None and session.champion is not None:
        calls = [*calls, run_call(lab, session, who)]
    if waiting:
        warnings.append(
            f"{waiting[0]} is undecided: reverting it puts the champion's file here, and this edit is saved under a ref. Run "
            "the edit before that, or decide and edit afterwards."
        )
    return EditAnswer(
        file=str(train_file_of(lab, who)),
        sha256=sha256_hex(edited.content),
        lines=len(edited.content.removesuffix(b"\n").split(b"\n")),
        builds_on=who.base or "the file that the session started with",
        refusal=None if refusal is None else shorten(refusal, _WORDS_BYTES),
        diff=diff,
        omitted="" if diff == whole else f"{len(whole) - len(diff)} characters of the diff; read_train() has the file",
        backup=edited.backup,
        warnings=warnings,
        next=calls,
        ledger_head=lab.ledger.head(),
    )
