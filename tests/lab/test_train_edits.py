"""Edits as text: what is certain is done to the byte, what is not changes nothing."""

from __future__ import annotations

import contextlib
import difflib
import re
import time

import pytest
from autoresearch_mcp.lab.candidate import unified_diff
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.train_edits import apply_patch, change_in_words, replace_once
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = b"""\
import torch
WIDTH = 16
DEPTH = 2

for step in range(DEPTH):
    x = step

for step in range(WIDTH):
    x = step

print(x)
"""

# Few different lines, so that the same ones come again and a place is not certain by its content alone.
_LINES = st.lists(
    st.sampled_from(["", "a", "b", "    a", "-- c", "++ c", "--- x", "+++ y", "@@ -1 +1 @@", "\\ d", "é\x0c", "\u2028"])
)
_TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, _LINES, st.sampled_from(["", "\n"]))
_VISIBLE_TEXTS = _TEXTS.map(lambda text: text.replace("\x0c", "").replace("\u2028", "e"))  # what a candidate may hold
_ANY_ENDS = st.builds(
    "".join, st.lists(st.builds(str.__add__, st.sampled_from(["", "a", "b"]), st.sampled_from(["\n", "\r\n"])))
)
FEW = settings(max_examples=150, deadline=None)


def patch_of(before: str, after: str, context: int = 3) -> str:
    lines = difflib.unified_diff(_kept(before), _kept(after), "a/trainer/train.py", "b/trainer/train.py", n=context)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _kept(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+$", text)


@FEW
@given(before=_TEXTS, after=_TEXTS, context=st.integers(0, 4))
def test_a_diff_of_difflib_gives_exactly_the_edited_file(before: str, after: str, context: int) -> None:
    if before != after:
        assert apply_patch(before.encode(), patch_of(before, after, context)) == after.encode()


@FEW
@given(before=_ANY_ENDS, after=_ANY_ENDS)
def test_a_diff_that_spells_its_carriage_returns_gives_exactly_the_edited_file(before: str, after: str) -> None:
    if before != after and (before.count("\r") == 0 or before.count("\r") == before.count("\n")):
        assert apply_patch(before.encode(), patch_of(before, after)) == after.encode()


@FEW
@given(before=_VISIBLE_TEXTS, after=_VISIBLE_TEXTS)
def test_a_diff_that_this_server_shows_can_be_applied(before: str, after: str) -> None:
    if before != after:
        assert apply_patch(before.encode(), unified_diff(before.encode(), after.encode())) == after.encode()


@FEW
@given(before=_TEXTS.filter(bool), after=_TEXTS)
def test_a_crlf_file_keeps_its_ends_under_an_edit_that_does_not_know_of_them(before: str, after: str) -> None:
    if before != after and "\n" in before:
        crlf = [text.replace("\n", "\r\n").encode() for text in (before, after)]
        assert apply_patch(crlf[0], patch_of(before, after)) == crlf[1]


@FEW
@given(source=_TEXTS, patch=st.text(st.sampled_from("ab@+- \\\n1,")))
def test_garbage_is_refused_or_does_what_its_plus_lines_say(source: str, patch: str) -> None:
    try:
        result = apply_patch(source.encode(), patch).decode()
    except CandidateError:
        return
    added = [line[1:] for line in patch.split("\n") if line.startswith("+")]
    assert set(result.split("\n")) <= {*source.split("\n"), *added, ""}


@FEW
@given(before=_TEXTS, middle=st.text("xy\n", min_size=1), after=_TEXTS, new=st.text())
def test_a_replacement_changes_only_the_place_it_names(before: str, middle: str, after: str, new: str) -> None:
    source = before + middle + after
    places = sum(source.startswith(middle, place) for place in range(len(source)))  # those that overlap too
    if places == 1 and "\r" not in new and middle != new:
        assert replace_once(source.encode(), middle, new) == (before + new + after).encode()


def test_a_replacement_that_could_mean_two_places_names_their_lines() -> None:
    with pytest.raises(CandidateError, match=r"there 2 times \(from lines 6, 9\), and must be there once"):
        replace_once(SOURCE, "    x = step", "    x = 1")


def test_places_that_overlap_are_two_places() -> None:
    with pytest.raises(CandidateError, match="2 times"):
        replace_once(b"aaa\n", "aa", "b")


def test_a_replacement_that_is_nowhere_names_the_nearest_line() -> None:
    with pytest.raises(CandidateError, match=r"there 0 times.*Nearest is line 2: 'WIDTH = 16'"):
        replace_once(SOURCE, "WIDTH = 61", "WIDTH = 32")
    with pytest.raises(CandidateError, match=r"Nearest is line 6: '    x = step'; its spaces or the lines after it differ"):
        replace_once(SOURCE, "  x = step\nelse", "x")


@pytest.mark.parametrize(("old", "new"), [("", "x"), ("WIDTH", "WIDTH")])
def test_a_replacement_without_a_change_is_refused(old: str, new: str) -> None:
    with pytest.raises(CandidateError):
        replace_once(SOURCE, old, new)


def test_a_byte_order_mark_and_crlf_stay_where_an_edit_does_not_spell_them() -> None:
    source = b"\xef\xbb\xbf" + SOURCE.replace(b"\n", b"\r\n")
    wanted = source.replace(b"DEPTH = 2\r\n", b"DEPTH = 3\r\nHEADS = 4\r\n")
    assert replace_once(source, "DEPTH = 2\n", "DEPTH = 3\nHEADS = 4\n") == wanted
    assert apply_patch(source, "@@\n import torch\n WIDTH = 16\n-DEPTH = 2\n+DEPTH = 3\n+HEADS = 4\n") == wanted


def test_a_file_of_mixed_line_ends_is_edited_to_the_byte() -> None:
    assert replace_once(b"a\r\nb\nc\r\n", "b\n", "B\n") == b"a\r\nB\nc\r\n"


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/trainer/train.py\n+++ b/trainer/train.py\n@@ -2,2 +2,2 @@\n-WIDTH = 16\n+WIDTH = 32\n DEPTH = 2\n",
        "@@ -90,9 +1,4 @@\n-WIDTH = 16\n+WIDTH = 32\n DEPTH = 2\n",  # counts and line numbers that are wrong
        "@@ ... @@\n-WIDTH = 16\n+WIDTH = 32\n",
        "@@ -2 +2 @@ import torch\n-WIDTH = 16\n+WIDTH = 32",  # no newline at the end
        "```diff\n--- train.py\n+++ train.py\n@@ -1,3 +1,3 @@\n import torch\n-WIDTH = 16\n+WIDTH = 32\n DEPTH = 2\n```\n",
        "diff --git a/trainer/train.py b/trainer/train.py\nindex 1234567..89abcde 100644\n--- a/trainer/train.py\n"
        "+++ b/trainer/train.py\n@@ -1,5 +1,5 @@\n import torch\n-WIDTH = 16\n+WIDTH = 32\n DEPTH = 2\n\n",
        "@@ -2,7 +2,7 @@\n-WIDTH = 16\n+WIDTH = 32\n\n\n",  # blank lines after it
        "--- train.py\t2026-01-01 00:00:00\n+++ train.py\t2026-01-02\n@@ -2 +2 @@\n-WIDTH = 16\n+WIDTH = 32\n",
    ],
)
def test_a_careless_diff_is_applied_where_its_meaning_is_certain(patch: str) -> None:
    assert apply_patch(SOURCE, patch) == SOURCE.replace(b"WIDTH = 16", b"WIDTH = 32")


def test_the_line_number_decides_between_equal_places() -> None:
    changed = apply_patch(SOURCE, "@@ -9,2 +9,2 @@\n-    x = step\n+    x = 1\n \n")
    assert changed.splitlines()[8] == b"    x = 1"
    with pytest.raises(CandidateError, match="2 times"):
        apply_patch(SOURCE, "@@ -7,2 +7,2 @@\n-    x = step\n+    x = 1\n \n")


def test_several_hunks_are_applied_together_or_not_at_all() -> None:
    first, wrong = "@@ -2 +2 @@\n-WIDTH = 16\n+WIDTH = 8\n", "@@ -11 +11 @@\n-print(y)\n+print(z)\n"
    assert apply_patch(SOURCE, first + wrong.replace("(y)", "(x)")).count(b"\n") == SOURCE.count(b"\n")
    with pytest.raises(CandidateError, match="Hunk 2 is nowhere"):
        apply_patch(SOURCE, first + wrong)
    with pytest.raises(CandidateError, match="Hunk 2 is at line 2, in or before"):
        apply_patch(SOURCE, wrong.replace("(y)", "(x)") + first)


def test_a_hunk_that_does_not_fit_says_which_line_does_not() -> None:
    with pytest.raises(CandidateError, match=r"It has 'DEPTH = 3', where line 3 of the file is 'DEPTH = 2'"):
        apply_patch(SOURCE, "@@ -1,3 +1,3 @@\n import torch\n-WIDTH = 16\n+WIDTH = 32\n DEPTH = 3\n")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "prepare/runtime.py", "a/trainer/../prepare/train.py", "/dev/null", "program.md"],
)
def test_a_patch_that_names_another_file_is_refused_whatever_its_lines_are(name: str) -> None:
    body = "@@ -2 +2 @@\n-WIDTH = 16\n+WIDTH = 32\n"
    ours = "trainer/train.py"
    for patch in (
        f"--- {name}\n+++ b/{ours}\n{body}",
        f"--- a/{ours}\n+++ {name}\n{body}",
        f"diff --git {name} {name}\n{body}",
        f"Index: {name}\n{body}",
        f"--- a/{ours}\n+++ b/{ours}\n{body}--- a/{name}\n+++ b/{name}\n@@ -3 +3 @@\n-DEPTH = 2\n+DEPTH = 3\n",
    ):
        with pytest.raises(CandidateError, match=r"only trainer/train.py can be edited"):
            apply_patch(SOURCE, patch)


@pytest.mark.parametrize(
    "line",
    [
        "new file mode 100644",
        "deleted file mode 100644",
        "rename to x",
        "GIT binary patch",
        "*** Begin Patch",
        "@@@ -1 -1 +1 @@@",
        "Here:",
    ],
)
def test_what_is_no_diff_of_lines_is_refused(line: str) -> None:
    with pytest.raises(CandidateError, match="patch"):
        apply_patch(SOURCE, f"{line}\n@@ -2 +2 @@\n-WIDTH = 16\n+WIDTH = 32\n")


@pytest.mark.parametrize(
    "patch", ["", "\n", "hello", "@@ -1 +1 @@\n", "@@ -2 +2 @@\n WIDTH = 16\n", "@@ -2 +2 @@\nWIDTH = 16\n+x\n"]
)
def test_a_patch_without_a_change_or_with_unmarked_lines_is_refused(patch: str) -> None:
    with pytest.raises(CandidateError):
        apply_patch(SOURCE, patch)


def test_lines_to_add_without_context_have_no_certain_place() -> None:
    with pytest.raises(CandidateError, match="no line of context"):
        apply_patch(SOURCE, "@@ -2,3 +2,4 @@\n+HEADS = 4\n")
    assert apply_patch(SOURCE, "@@ -3,0 +4 @@\n+HEADS = 4\n") == SOURCE.replace(b"DEPTH = 2\n", b"DEPTH = 2\nHEADS = 4\n")


def test_a_file_without_a_last_newline_can_be_edited_by_who_does_not_see_that() -> None:
    assert apply_patch(b"a\nb", "@@ -1,2 +1,2 @@\n-a\n+A\n b\n") == b"A\nb"
    assert apply_patch(b"a\nb", "@@ -1,2 +1,3 @@\n a\n b\n+c\n") == b"a\nb\nc\n"


def test_bytes_that_are_no_text_and_text_that_is_no_bytes_are_refused() -> None:
    with pytest.raises(CandidateError, match="not UTF-8 in line 2"):
        replace_once(b"a\n\xff\n", "a", "b")
    with pytest.raises(CandidateError, match="no character"):
        replace_once(b"a\n", "a", "\ud800")


def test_a_large_file_and_garbage_of_the_same_size_are_answered_soon() -> None:
    source = b"x = 1\n" * 10_000
    with pytest.raises(CandidateError):
        apply_patch(source, "@@ -1,9999 +1,9999 @@\n" + " x = 1\n" * 9_000 + "-y\n+z\n")
    with pytest.raises(CandidateError, match="more"):
        replace_once(source, "x", "y")


@pytest.mark.parametrize(
    ("source", "edit"),
    [
        (b"a" * 65_535 + b"\n", ("a" * 32_000, "b")),
        (b"\n" * 65_535, "@@\n" + " \n" * 32_000 + "-\n+x\n"),
        (b"\n" * 65_535, "@@\n" + " \n" * 32_000 + "-y\n"),
        (b"\n" * 65_535, "".join(f"@@ -{line} +{line} @@\n-\n+x\n" for line in range(1, 20_000, 4))),
    ],
    ids=["one letter", "blank lines", "blank lines and a word", "a hunk for each blank line"],
)
def test_an_edit_of_equal_places_costs_no_more_than_its_size(source: bytes, edit: str | tuple[str, str]) -> None:
    began = time.process_time()
    with contextlib.suppress(CandidateError):
        apply_patch(source, edit) if isinstance(edit, str) else replace_once(source, *edit)
    assert time.process_time() - began < 10.0


def test_a_change_is_told_in_words() -> None:
    from_source = b"from prepare import make_dataloader, evaluate_bpb\nmake_dataloader()\nevaluate_bpb()\nWIDTH = 16\n"
    changed = from_source.replace(b"16", b"32") + b"HEADS = 4\n"
    assert change_in_words(from_source, changed) == "HEADS none -> 4, WIDTH 16 -> 32, 2 lines added, 1 removed"
    assert change_in_words(SOURCE, SOURCE) == ""
    assert change_in_words(b"a\n", b"(\n") == "1 lines added, 1 removed"
