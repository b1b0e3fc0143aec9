"""read_train and edit_train: research without access to files, under the conditions that a file has, and nothing lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.candidate import MAX_SOURCE_BYTES
from autoresearch_mcp.lab.errors import CandidateError, LabError
from autoresearch_mcp.lab.files import sha256_hex
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.tools.edit_train import edit_train
from autoresearch_mcp.tools.read_train import TrainAnswer, read_train
from autoresearch_mcp.tools.revert import revert
from autoresearch_mcp.tools.run_experiment import run_experiment
from autoresearch_mcp.tools.start_session import start_session

Record = Callable[..., Experiment]
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def backups(lab: Lab) -> list[bytes]:
    return [lab.git.read_blob(blob) for blob in lab.git.refs("refs/autoresearch/backup").values()]


def pages(lab: Lab, **asked: str) -> list[TrainAnswer]:
    """Read a whole file by the calls that the answers give."""
    answers = [read_train(lab, **asked)]  # type: ignore[arg-type]
    while answers[-1].next[0].startswith("read_train(first_line="):
        first = int(answers[-1].next[0].split("=")[1].split(",")[0].split(")")[0])
        answers.append(read_train(lab, first_line=first, **asked))  # type: ignore[arg-type]
    return answers


@pytest.fixture
def measured(still: Lab, record: Record) -> Lab:
    """A lab whose baseline has its number."""
    record(still, 2.0, description="baseline")
    return still


def test_a_file_is_read_in_pages_whose_text_is_exactly_the_files(lab: Lab) -> None:
    source = (REPOSITORY / "trainer" / "train.py").read_bytes() + '\n# ünïcode "quotes" \\ and\ttabs'.encode()
    lab.workspace.train.write_bytes(source)
    answers = pages(lab)
    assert len(answers) > 1
    assert "".join(answer.content for answer in answers).encode() == source
    for answer in answers:
        assert max(len(answer.text().encode()), len(answer.model_dump_json().encode())) < 10_000
        assert answer.content in answer.text()
        assert answer.sha256 == sha256_hex(source)
    assert [answer.first_line for answer in answers[1:]] == [answer.last_line + 1 for answer in answers[:-1]]
    assert "no newline at its end" in " ".join(answers[-1].warnings)


def test_reading_says_what_the_file_builds_on_and_how_it_differs(measured: Lab) -> None:
    assert read_train(measured).about == "builds on e0001, unchanged"
    edit_train(measured, "WIDTH = 16", "WIDTH = 32")
    assert read_train(measured).about == "builds on e0001; changed: WIDTH 16 -> 32, 1 lines added, 1 removed; never run"
    champion = read_train(measured, whose="champion")
    assert "WIDTH = 16" in champion.content
    assert champion.about == "your own file builds on it"


def test_a_line_that_no_answer_can_hold_is_cut_and_said_to_be(lab: Lab) -> None:
    lab.workspace.train.write_text(f"a = 1\n# {'é' * 20_000}\nb = 2\n")
    answers = pages(lab)
    assert [answer.first_line for answer in answers] == [1, 2, 3]
    assert "Line 2 is too long" in answers[1].warnings[0]
    assert max(len(answer.model_dump_json().encode()) for answer in answers) < 10_000


def test_an_edit_is_written_shown_and_runs(measured: Lab) -> None:
    answer = edit_train(measured, "WIDTH = 16", "WIDTH = 32")
    content = measured.workspace.train.read_bytes()
    assert b"WIDTH = 32" in content
    assert answer.sha256 == sha256_hex(content)
    assert "-WIDTH = 16" in answer.diff
    assert "+WIDTH = 32" in answer.text()
    assert answer.next[0].startswith("run_experiment(")
    assert "WIDTH 16 -> 32" in answer.next[0]
    assert run_experiment(measured, "wider", wait_seconds=0.0).experiment.id == "e0002"
    assert backups(measured) == []


def test_a_patch_edits_several_places_at_once(measured: Lab) -> None:
    answer = edit_train(
        measured, patch="@@ -5 +5 @@\n-WIDTH = 16  # size of the embedding\n+WIDTH = 8\n@@ @@\n-step = 0\n+step = -1\n"
    )
    assert b"WIDTH = 8\n" in measured.workspace.train.read_bytes()
    assert answer.diff.count("\n+") == 3  # and the header


@pytest.mark.parametrize("how", [{}, {"old": "a", "new": "b", "patch": "@@ -1 +1 @@\n-a\n+b\n"}, {"old": "no such text"}])
def test_an_edit_that_is_none_changes_nothing(measured: Lab, how: dict[str, str]) -> None:
    before = measured.workspace.train.read_bytes()
    with pytest.raises(CandidateError, match="nothing was changed"):
        edit_train(measured, **how)
    assert measured.workspace.train.read_bytes() == before


def test_a_file_that_could_not_run_is_written_and_said_to_be_refused(measured: Lab) -> None:
    """As an editor would: so that an edit may take two steps."""
    answer = edit_train(measured, "step = 0", "step = (")
    assert "does not parse" in (answer.refusal or "")
    assert answer.next[0].startswith("repair trainer/train.py, which run_experiment(")
    with pytest.raises(CandidateError, match="does not parse"):
        run_experiment(measured, "broken")
    mended = edit_train(measured, "step = (", "step = (1)")
    assert mended.refusal is None
    assert mended.next[0].startswith("run_experiment(")


def test_a_file_that_was_changed_meanwhile_is_left_alone(measured: Lab) -> None:
    read = read_train(measured).sha256
    measured.workspace.train.write_text(measured.workspace.train.read_text() + "# a human's\n")
    before = measured.workspace.train.read_bytes()
    with pytest.raises(CandidateError, match="changed since you read it"):
        edit_train(measured, "WIDTH = 16", "WIDTH = 32", expected_sha256=read)
    assert measured.workspace.train.read_bytes() == before
    edit_train(measured, "WIDTH = 16", "WIDTH = 32", expected_sha256=sha256_hex(before)[:8])


def test_what_somebody_else_left_unrun_is_saved_before_the_first_edit_and_only_then(measured: Lab) -> None:
    human = measured.workspace.train.read_bytes() + b"# a human's\n"
    measured.workspace.train.write_bytes(human)
    first = edit_train(measured, "WIDTH = 16", "WIDTH = 32")
    second = edit_train(measured, "WIDTH = 32", "WIDTH = 64")
    assert first.backup is not None
    assert first.backup in first.text()
    assert second.backup is None
    assert backups(measured) == [human]
    edited = measured.workspace.train.read_bytes()
    revert(measured, experiments.WORKSPACE)
    assert sorted(backups(measured)) == sorted([human, edited])


def test_of_two_edits_at_once_none_is_lost(measured: Lab) -> None:
    """Through two servers; who comes second is told, and tries again."""
    other = Lab.open(measured.root, pinned=False)
    done: list[str] = []

    def add(lab: Lab, name: str) -> None:
        for number in range(8):
            while True:
                try:
                    edit_train(lab, "step = 0\n", f"{name}_{number} = 1\nstep = 0\n", researcher="tester")
                    break
                except CandidateError as error:
                    if "somebody else" not in str(error):
                        raise
            done.append(f"{name}_{number}")

    threads = [threading.Thread(target=add, args=pair) for pair in ((measured, "ann"), (other, "ben"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    text = measured.workspace.train.read_text()
    assert len(done) == 16
    assert all(f"{name} = 1\n" in text for name in done)


def test_each_researcher_edits_its_own_file(measured: Lab) -> None:
    start_session(measured, researcher="tester")
    own = Path(start_session(measured, researcher="ben").train_file)
    answer = edit_train(measured, "WIDTH = 16", "WIDTH = 64", researcher="ben")
    assert answer.file == str(own)
    assert b"WIDTH = 64" in own.read_bytes()
    assert b"WIDTH = 16" in measured.workspace.train.read_bytes()
    assert "researcher='ben'" in answer.next[0]
    with pytest.raises(LabError, match="researcher="):
        edit_train(measured, "WIDTH = 16", "WIDTH = 32")


def test_crlf_is_shown_as_newlines_and_kept(measured: Lab) -> None:
    crlf = measured.workspace.train.read_bytes().replace(b"\n", b"\r\n")
    measured.workspace.train.write_bytes(crlf)
    answer = read_train(measured)
    assert (answer.newlines, "\r" in answer.content) == ("CRLF", False)
    edit_train(measured, "\nstep = 0\n", "\nstep = 1\nmore = 2\n")
    assert measured.workspace.train.read_bytes() == crlf.replace(b"step = 0\r\n", b"step = 1\r\nmore = 2\r\n")


def test_before_the_baseline_an_edited_file_is_sent_back_to_what_is_measured_first(still: Lab) -> None:
    answer = edit_train(still, "WIDTH = 16", "WIDTH = 32")
    assert answer.next[0].startswith("revert('workspace'): the baseline comes first")
    assert revert(still, experiments.WORKSPACE).next[0].startswith("run_experiment(description='baseline')")


def test_an_edit_while_an_experiment_is_undecided_says_how_not_to_lose_it(measured: Lab, record: Record) -> None:
    worse = record(measured, 2.5, change="\nA = 1\n")
    answer = edit_train(measured, "WIDTH = 16", "WIDTH = 32")
    assert f"{worse.id} is undecided" in answer.warnings[0]
    assert answer.next[0].startswith(f"revert('{worse.id}'")
    assert answer.next[-1].startswith("run_experiment(")
    assert revert(measured, worse.id).backup is not None


# -- attacks ------------------------------------------------------------------------------------------------------------------


def symbolic_link(train: Path, victim: Path) -> None:
    train.unlink()
    train.symlink_to(victim)


def hard_link(train: Path, victim: Path) -> None:
    train.unlink()
    os.link(victim, train)


def linked_folder(train: Path, victim: Path) -> None:
    train.rename(victim.parent / "train.py")
    train.parent.rmdir()
    train.parent.symlink_to(victim.parent)


def pipe(train: Path, victim: Path) -> None:
    train.unlink()
    os.mkfifo(train)


@pytest.mark.parametrize("attack", [symbolic_link, hard_link, linked_folder, pipe])
def test_a_file_that_leads_elsewhere_is_neither_shown_nor_written(
    measured: Lab, tmp_path: Path, attack: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "elsewhere" / "secret"
    victim.parent.mkdir()
    victim.write_text("WIDTH = 16  # a secret\n")
    attack(measured.workspace.train, victim)
    for call in (lambda: read_train(measured), lambda: edit_train(measured, "WIDTH = 16", "WIDTH = 32")):
        with pytest.raises(CandidateError, match=r"revert\('workspace'\)") as refused:
            call()
        assert "a secret" not in str(refused.value)
    assert victim.read_text() == "WIDTH = 16  # a secret\n"


@pytest.mark.parametrize("attack", [symbolic_link, hard_link, pipe])
def test_the_way_back_that_the_refusal_names_works(measured: Lab, tmp_path: Path, attack: Callable[[Path, Path], None]) -> None:
    victim = tmp_path / "secret"
    victim.write_text("x = 1\n")
    attack(measured.workspace.train, victim)
    revert(measured, experiments.WORKSPACE)
    assert read_train(measured).about == "builds on e0001, unchanged"
    assert victim.read_text() == "x = 1\n"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"x = 1\n" * 20_000, "the limit is"), (b"WIDTH = 16\n\xff\n", "not UTF-8 in line 2")]
)
def test_what_is_too_large_or_no_text_cannot_be_edited(measured: Lab, content: bytes, reason: str) -> None:
    measured.workspace.train.write_bytes(content)
    with pytest.raises(CandidateError, match=reason):
        edit_train(measured, "WIDTH = 16", "WIDTH = 32")
    assert measured.workspace.train.read_bytes() == content


@pytest.mark.parametrize(
    ("new", "reason"), [("# \0", "NUL byte in line 5"), ("#" * MAX_SOURCE_BYTES, "the limit is"), ("# \ud800", "no character")]
)
def test_an_edit_that_would_make_it_too_large_or_no_text_is_refused(measured: Lab, new: str, reason: str) -> None:
    before = measured.workspace.train.read_bytes()
    with pytest.raises(CandidateError, match=reason):
        edit_train(measured, "WIDTH = 16", new)
    assert measured.workspace.train.read_bytes() == before


@pytest.mark.parametrize("name", ["../../etc/passwd", "prepare/runtime.py", "program.md", ".git/config"])
def test_a_patch_of_another_file_touches_neither(measured: Lab, name: str) -> None:
    folder = {path: path.read_bytes() for path in measured.root.rglob("*") if path.is_file()}
    with pytest.raises(CandidateError, match=r"only trainer/train\.py"):
        edit_train(measured, patch=f"--- a/{name}\n+++ b/{name}\n@@ -5 +5 @@\n-step = 0\n+step = 1\n")
    assert {path: path.read_bytes() for path in measured.root.rglob("*") if path.is_file()} == folder


def test_control_characters_of_a_file_stay_out_of_what_is_said_about_it(measured: Lab) -> None:
    answer = edit_train(measured, "WIDTH = 16", "WIDTH = '\x1b[31m\u202e'")
    assert not {"\x1b", "\u202e"} & set(answer.text())
    assert not {"\x1b", "\u202e"} & set(read_train(measured).about)
    assert max(len(answer.text().encode()), len(json.dumps(answer.model_dump()).encode())) < 10_000


def test_the_text_of_a_huge_edit_stays_small(measured: Lab) -> None:
    answer = edit_train(measured, "step = 0", "step = 0\n" + '"' * 2 + "\n" + '# \\ "\n' * 5_000)
    assert "characters of the diff" in answer.omitted
    assert max(len(answer.text().encode()), len(answer.model_dump_json().encode())) < 10_000
