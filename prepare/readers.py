"""Documents out of files that people have: text, Markdown, JSONL and Parquet.

    .txt .md    the file is one document
    .jsonl      each line is an object; the document is its field ``text``, else ``content``
    .parquet    each row; the column is ``text``, else ``content``, else the only column of text

Guarantees: the same file gives the same documents in the same order; they are valid UTF-8 text, unchanged but for a byte order
mark at the start of a file, which is dropped; none is empty or only white space; none has more than `DOCUMENT_CHARACTERS`
characters. A longer one is cut after a blank line, else after a line, else after a space, and its parts are documents of
their own. Memory is about a megabyte for text, a line for JSONL, a row group for Parquet. Every failure is a `PrepareError`
that names the file, the line where there are lines, and what to do.

Not covered: compressed text, other encodings, text inside nested fields.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from .errors import LibraryMissingError, PrepareError

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
TEXT_FIELDS = ("text", "content")

# Some 20 times the longest context. Small enough that a single book gives each split some of its parts.
DOCUMENT_CHARACTERS = 65_536

_BLOCK_BYTES = 1 << 20
_LONGEST_LINE_BYTES = 1 << 28
_BATCH_ROWS = 1024
_BORDERS = (("\n\n", "\n\r\n"), ("\n",), (" ",))  # after which a long document is cut, best first


def is_readable(path: Path) -> bool:
    """Whether `read_documents_of` knows the kind of file, by the ending of its name."""
    return path.suffix.lower() in SUFFIXES


def require_library(path: Path) -> None:
    """Import what reading ``path`` takes; raises `LibraryMissingError`, which names the command that installs it."""
    if path.suffix.lower() != ".parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise LibraryMissingError(
            f"{path} is a Parquet file, which takes one more library ({error}): run `pip install pyarrow` "
            "with the Python that runs autoresearch, then the same command again"
        ) from error


def read_documents_of(path: Path) -> Iterator[str]:
    """Yield the documents of one file, by the ending of its name.

    Raises:
        ValueError: no file of that kind can be read.
        LibraryMissingError: it is a Parquet file and pyarrow is not installed; the text names the pip command.
        PrepareError: it cannot be read, or is not what its name says.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".txt", ".md"):
            yield from _without_empty(_bounded(_read_text(path)))
        elif suffix in (".jsonl", ".parquet"):
            records = _read_jsonl(path) if suffix == ".jsonl" else read_parquet(path)
            for record in records:
                yield from _without_empty(_bounded([record]))
        else:
            raise ValueError(f"{path} is not a {', '.join(SUFFIXES)} file")
    except OSError as error:
        reason = error.strerror or str(error)
        raise PrepareError(f"{path} cannot be read ({reason}): make it readable, or take it out of the folder") from error


def read_parquet(path: Path, column: str | None = None, *, first_row: int = 0, stop_row: int | None = None) -> Iterator[str]:
    """Yield the texts of one column of a Parquet file, a row group at a time; null and empty ones are left out.

    Args:
        column: its name; by default `TEXT_FIELDS`, else the only column that holds text.
        first_row, stop_row: only these rows, the last not included; None: to the end.

    Raises:
        LibraryMissingError: pyarrow is not installed; the text names the pip command.
        PrepareError: it is no Parquet file, or has no such column; the text lists those that it has.
    """
    require_library(path)
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            name = _column_of_text(path, file.schema_arrow, column)
            after = 0  # the row behind the group
            for group in range(file.num_row_groups):
                row, after = after, after + file.metadata.row_group(group).num_rows
                if after <= first_row or (stop_row is not None and row >= stop_row):
                    continue
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=[name]):
                    last = batch.num_rows if stop_row is None else max(0, stop_row - row)
                    yield from filter(None, batch.column(0).to_pylist()[max(0, first_row - row) : last])
                    row += batch.num_rows
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file itself: absent, or not ours to read
        reason = " ".join(str(error).split())
        raise PrepareError(f"{path} cannot be read as a Parquet file ({reason}): make it again, or take it out") from error


def _column_of_text(path: Path, schema: Any, wanted: str | None) -> str:
    from pyarrow import types

    def holds_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    columns = [field.name for field in schema if holds_text(field.type)]
    preferred = TEXT_FIELDS if wanted is None else (wanted,)
    for name in preferred:
        if columns.count(name) == 1:
            return name
    if wanted is None and len(columns) == 1:
        return columns[0]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    needed = " or ".join(map(repr, preferred))
    raise PrepareError(f"{path} has no column {needed} that holds text; its columns are {listed}: rename the one to learn from")


def _read_text(path: Path) -> Iterator[str]:
    """Yield a text file in pieces of about a megabyte."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    lines = 1
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            try:
                piece = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, lines + error.object[: error.start].count(b"\n"), error) from error
            lines += piece.count("\n")
            if piece:
                yield piece
            if not block:
                return


def _read_jsonl(path: Path) -> Iterator[str]:
    """Yield the text of every record; empty lines are left out."""
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(_LONGEST_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > _LONGEST_LINE_BYTES:
                raise PrepareError(
                    f"{path}, line {number}: longer than {_LONGEST_LINE_BYTES >> 20} MB; in JSONL each record has a line of "
                    "its own: split the record, or save plain text as .txt"
                )
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.isspace():
                yield _text_of_record(path, number, line)


def _text_of_record(path: Path, number: int, line: bytes) -> str:
    def bad(reason: str) -> PrepareError:
        return PrepareError(f"{path}, line {number}: {reason}: correct the line, or remove it")

    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, number, error) from error
    except (ValueError, RecursionError) as error:
        raise bad(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise bad(f'a {type(record).__name__} where an object such as {{"text": "..."}} belongs')
    field = next((name for name in TEXT_FIELDS if name in record), None)
    if field is None:
        names = ", ".join(map(repr, record)) or "none"
        raise bad(f"no field {' or '.join(map(repr, TEXT_FIELDS))}; its fields are {names[:200]}")
    text = record[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise bad(f"the field {field!r} holds a {type(text).__name__}, not a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad(f"the field {field!r} holds half of a surrogate pair, which is no character ({error.reason})") from error
    return text


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> PrepareError:
    return PrepareError(
        f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}): convert the file (such as `iconv -f latin1 "
        "-t utf-8`), or take it out of the folder"
    )


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    """Yield one text, given in pieces, as documents of bounded length; where it is cut depends on the text alone."""
    rest = ""
    for piece in pieces:
        rest += piece
        start = 0
        while len(rest) - start > DOCUMENT_CHARACTERS:
            stop = _cut_after(rest, start)
            yield rest[start:stop]
            start = stop
        rest = rest[start:]
    yield rest


def _cut_after(text: str, start: int) -> int:
    """Return where the document that begins at ``start`` ends: after the last border in the second half of its room."""
    latest = start + DOCUMENT_CHARACTERS
    for borders in _BORDERS:
        stops = [text.rfind(border, start + DOCUMENT_CHARACTERS // 2, latest) + len(border) for border in borders]
        if max(stops) > start + DOCUMENT_CHARACTERS // 2:
            return max(stops)
    return latest


def _without_empty(documents: Iterable[str]) -> Iterator[str]:
    return (document for document in documents if document and not document.isspace())
