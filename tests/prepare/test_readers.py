from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.prepare import readers
from autoresearch_mcp.prepare.errors import LibraryMissingError, PrepareError
from autoresearch_mcp.prepare.readers import read_documents_of, read_parquet

TEXTS = ["One line.\n", "Zwei Zeilen,\r\nmit Umlauten: äöü.\r\n", "三 lines\n👩‍👩‍👧 of\nemoji 🎉"]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def documents(path: Path) -> list[str]:
    return list(read_documents_of(path))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "A.TXT"])
def test_a_text_file_is_one_document_with_its_line_endings(tmp_path: Path, name: str):
    for text in TEXTS:
        assert documents(written(tmp_path / name, text)) == [text]


@pytest.mark.parametrize("field", ["text", "content"])
def test_a_jsonl_file_has_a_document_in_each_line(tmp_path: Path, field: str):
    lines = [json.dumps({"id": 1, field: text}, ensure_ascii=escaped) for text in TEXTS for escaped in (True, False)]
    expected = [text for text in TEXTS for _ in range(2)]
    assert documents(written(tmp_path / "a.jsonl", "\n".join(lines))) == expected
    assert documents(written(tmp_path / "b.jsonl", "\r\n\n".join([*lines, ""]))) == expected


def test_text_is_preferred_to_content_in_jsonl(tmp_path: Path):
    assert documents(written(tmp_path / "a.jsonl", '{"content": "no", "text": "yes"}\n{"content": "this"}\n')) == [
        "yes",
        "this",
    ]


@pytest.mark.parametrize("column", ["text", "content", "only"])
def test_a_parquet_file_has_a_document_in_each_row(tmp_path: Path, make_parquet: Callable[..., bytes], column: str):
    path = written(tmp_path / "a.parquet", make_parquet([*TEXTS, None, "", *TEXTS], column=column, rows_per_group=2))
    assert documents(path) == TEXTS * 2
    assert list(read_parquet(path, column)) == TEXTS * 2


@pytest.mark.parametrize(("first", "stop"), [(0, None), (0, 3), (1, 4), (2, 2), (3, 9), (4, None), (5, 6), (9, None)])
def test_only_the_asked_rows_of_a_parquet_file_are_read_wherever_its_groups_end(
    tmp_path: Path, make_parquet: Callable[..., bytes], first: int, stop: int | None
):
    rows = [f"row {number}" for number in range(7)]
    path = written(tmp_path / "a.parquet", make_parquet(rows, column="text", rows_per_group=2))
    assert list(read_parquet(path, first_row=first, stop_row=stop)) == rows[first:stop]


def test_parquet_columns_of_every_kind_of_text_are_read_by_name(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    columns = {
        "id": pyarrow.array([1, 2, 3]),
        "text": pyarrow.array(TEXTS, pyarrow.large_string()),
        "content": pyarrow.array(["a", "b", "c"]).dictionary_encode(),
        "title": pyarrow.array(["x", "y", "z"]),
    }
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert documents(path) == TEXTS
    assert list(read_parquet(path, "content")) == ["a", "b", "c"]
    with pytest.raises(
        PrepareError, match=r"a\.parquet has no column 'id' that holds text; its columns are id \(int64\), text"
    ):
        list(read_parquet(path, "id"))
    pyarrow.parquet.write_table(pyarrow.table({name: columns[name] for name in ("id", "title")}), path)
    assert documents(path) == ["x", "y", "z"]
    pyarrow.parquet.write_table(pyarrow.table({"one": columns["title"], "two": columns["title"]}), path)
    with pytest.raises(PrepareError, match=r"no column 'text' or 'content' that holds text.*: rename the one to learn from"):
        documents(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "text"), ("a.md", "text"), ("a.jsonl", '{"text": "text"}\n{"text": "more"}\n')]
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, content: str):
    assert documents(written(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))[0] == "text"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", ""), ("a.md", " \n\r\n\t"), ("a.jsonl", '{"text": ""}\n{"text": "\\n "}\n{"text": null}\n\n')],
)
def test_what_is_empty_is_no_document(tmp_path: Path, name: str, content: str):
    assert documents(written(tmp_path / name, content)) == []


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "border"),
    [
        ("wörter in a line\nand another 🎉 line\n\n" * 20, "\n\n"),
        ("wörter in a line\r\nand another 🎉 line\r\n\r\n" * 20, "\r\n\r\n"),
        ("one line\nafter another line\n" * 20, "\n"),
        ("no line ends here " * 30, " "),
        ("🎉x" * 300, ""),
    ],
    ids=["paragraphs", "crlf", "lines", "words", "nothing"],
)
def test_a_long_text_is_cut_at_its_best_borders_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, border: str, block_bytes: int
):
    monkeypatch.setattr(readers, "DOCUMENT_CHARACTERS", 100)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", block_bytes)
    found = documents(written(tmp_path / "a.txt", text))
    assert "".join(found) == text
    assert all(len(document) <= 100 for document in found)
    assert all(len(document) > 50 and document.endswith(border) for document in found[:-1])
    assert documents(written(tmp_path / "a.jsonl", json.dumps({"text": text}))) == found


def test_a_huge_single_line_becomes_documents_of_bounded_size(tmp_path: Path):
    text = "".join(f"word{index} " for index in range(300_000))
    found = documents(written(tmp_path / "a.txt", text))
    assert "".join(found) == text
    assert max(map(len, found)) <= readers.DOCUMENT_CHARACTERS
    assert documents(written(tmp_path / "a.md", "x" * 200_000)) == ["x" * 65_536] * 3 + ["x" * 3_392]


@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [(b"fine\ngr\xfcn\n", 2, "fc"), (b"\xef\xbb\xbf\n\n\xff", 3, "ff"), ("é\ncut: 🎉".encode()[:-1], 2, "f0")],
)
def test_text_that_is_not_utf8_is_refused_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, content: bytes, line: int, byte: str
):
    monkeypatch.setattr(readers, "_BLOCK_BYTES", block_bytes)
    with pytest.raises(PrepareError, match=rf"a\.txt, line {line}: not UTF-8 \(byte 0x{byte}\): convert the file"):
        documents(written(tmp_path / "a.txt", content))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": "a"} {"text": "b"}', "not JSON"),
        (b'"text"', "a str where an object"),
        (b"[]", "a list where an object"),
        (b"{}", "no field 'text' or 'content'; its fields are none"),
        (b'{"body": "a"}', "no field 'text' or 'content'; its fields are 'body'"),
        (b'{"text": 3}', "the field 'text' holds a int, not a text"),
        (b'{"text": "a\\ud83d"}', "the field 'text' holds half of a surrogate pair"),
        (b'{"text": "\xfc"}', r"not UTF-8 \(byte 0xfc\)"),
    ],
)
def test_a_bad_jsonl_line_is_refused_by_file_and_line(tmp_path: Path, line: bytes, reason: str):
    with pytest.raises(PrepareError, match=rf"a\.jsonl, line 3: {reason}"):
        documents(written(tmp_path / "a.jsonl", b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine"}\n'))


def test_a_jsonl_line_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "_LONGEST_LINE_BYTES", 1000)
    path = written(tmp_path / "a.jsonl", '{"text": "fine"}\n{"text": "' + "a" * 2000)
    with pytest.raises(PrepareError, match=r"a\.jsonl, line 2: longer than .* split the record"):
        documents(path)


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path, make_parquet: Callable[..., bytes]):
    content = make_parquet(TEXTS)
    for damaged in (b"", b"no parquet at all", content[:-9], content[:4] + bytes(len(content) - 12) + content[-8:]):
        with pytest.raises(PrepareError, match=r"a\.parquet cannot be read as a Parquet file \("):
            documents(written(tmp_path / "a.parquet", damaged))


def test_without_pyarrow_the_command_that_installs_it_is_named(
    tmp_path: Path, make_parquet: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
):
    path = written(tmp_path / "a.parquet", make_parquet(TEXTS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LibraryMissingError, match="pip install pyarrow"):
        documents(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, name: str):
    with pytest.raises(PrepareError, match=rf"{name} cannot be read \(.*(No such file|no such file).*\): make it readable"):
        documents(tmp_path / name)


def test_other_files_are_not_read(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a\.pdf is not a \.txt, \.md, \.jsonl, \.parquet file"):
        documents(written(tmp_path / "a.pdf", "text"))
