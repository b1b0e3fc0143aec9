"""Three-way merges of bytes, with the real git."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.errors import GitError
from autoresearch_mcp.lab.merging import Merge, merge_file

from .users import make_repository, names_in, plant

BASE = b"DEPTH = 4\n\nWIDTH = 16\n\nRATE = 1\n"


def test_changes_in_different_places_are_both_kept():
    merged = merge_file(BASE, BASE.replace(b"4", b"6"), BASE.replace(b"RATE = 1", b"RATE = 2"))
    assert merged == Merge(content=b"DEPTH = 6\n\nWIDTH = 16\n\nRATE = 2\n", conflicts=0)


def test_changes_of_one_line_conflict_and_both_are_shown_with_what_was_there():
    labels = ("e0001", "e0004, the champion", "e0005")
    merged = merge_file(BASE, BASE.replace(b"16", b"32"), BASE.replace(b"16", b"64"), labels=labels)
    assert merged.conflicts == 1
    assert merged.content.decode() == (
        "DEPTH = 4\n\n<<<<<<< e0004, the champion\nWIDTH = 32\n||||||| e0001\nWIDTH = 16\n"
        "=======\nWIDTH = 64\n>>>>>>> e0005\n\nRATE = 1\n"
    )


def test_every_conflict_is_counted():
    ours, theirs = (
        BASE.replace(b"4", b"5").replace(b"RATE = 1", b"RATE = 3"),
        BASE.replace(b"4", b"6").replace(b"RATE = 1", b""),
    )
    assert merge_file(BASE, ours, theirs).conflicts == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"), [(b"x\0", b"b\0", b"x\0"), (b"b\0", b"x\0", b"x\0"), (b"x\0", b"x\0", b"x\0")]
)
def test_where_one_side_changed_nothing_even_binary_content_merges(ours, theirs, merged):
    assert merge_file(b"b\0", ours, theirs) == Merge(content=merged, conflicts=0)


def test_binary_content_that_both_changed_is_refused():
    with pytest.raises(GitError, match=r"cannot be merged .*binary.*by hand"):
        merge_file(b"a\0", b"b\0", b"c\0")


def test_windows_line_endings_stay_also_around_a_conflict():
    base = BASE.replace(b"\n", b"\r\n")
    clean = merge_file(base, base.replace(b"4", b"6"), base.replace(b"RATE = 1", b"RATE = 2"))
    assert clean.content == b"DEPTH = 6\r\n\r\nWIDTH = 16\r\n\r\nRATE = 2\r\n"
    conflict = merge_file(base, base.replace(b"16", b"32"), base.replace(b"16", b"64"))
    assert conflict.conflicts == 1
    assert conflict.content.count(b"\n") == conflict.content.count(b"\r\n")


def test_a_last_line_without_an_end_stays_without():
    base = BASE.removesuffix(b"\n")
    assert merge_file(base, base.replace(b"4", b"6"), base).content == base.replace(b"4", b"6")
    merged = merge_file(base, base.replace(b"4", b"6"), base.replace(b"RATE = 1", b"RATE = 2"))
    assert merged.content == b"DEPTH = 6\n\nWIDTH = 16\n\nRATE = 2"


def test_an_empty_base_and_empty_sides_are_files_too():
    assert merge_file(b"", b"", b"x\n").content == b"x\n"
    assert merge_file(b"", b"a\n", b"b\n").conflicts == 1
    assert merge_file(BASE, b"", BASE).content == b""


def test_a_label_is_one_line_of_text_and_never_an_option():
    merged = merge_file(b"a\n", b"b\n", b"c\n", labels=("--help", "two\nlines\0", "-p"))
    assert merged.content == b"<<<<<<< two lines \nb\n||||||| --help\na\n=======\nc\n>>>>>>> -p\n"


def test_nothing_of_a_repository_around_the_temporary_folder_is_read(tmp_path, monkeypatch):
    folder = make_repository(tmp_path / "lab")
    plant(folder, tmp_path / "markers")
    (folder / ".git" / "config").write_text("not a configuration\n")
    (folder / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
    assert b"|||||||" in merge_file(b"a\n", b"b\n", b"c\n").content
    assert names_in(tmp_path / "markers") == []
    assert names_in(folder / "tmp") == []
