import argparse
import difflib
import inspect
import random
import time

import pytest
from autoresearch_mcp.lab.candidate import (
    MAX_NEW_LITERAL_BYTES,
    MAX_SOURCE_BYTES,
    changed_constants,
    check_candidate,
    unified_diff,
)
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.files import sha256_hex

HEAD = b"""\
import torch
from prepare import SEED, evaluate_bpb, make_dataloader

loader = make_dataloader(None, 8, 256, "train")
evaluate_bpb(None, None, 8)
"""


def refusal(source: bytes, parent: bytes | None = None) -> str:
    with pytest.raises(CandidateError) as caught:
        check_candidate(source, parent)
    assert str(caught.value).startswith("train.py")
    assert "run_experiment" in str(caught.value)
    return str(caught.value)


def realistic_source(size_bytes: int) -> bytes:
    body = b"import re as _re\n" + inspect.getsource(argparse).encode()
    body = body[: size_bytes - len(HEAD)]
    return HEAD + body[: body.rindex(b"\n    def ") + 1]


def test_an_honest_candidate_passes_with_its_facts():
    facts = check_candidate(HEAD, None)
    assert facts.sha256 == sha256_hex(HEAD)
    assert facts.lines == 4
    assert facts.constants == {}
    assert facts.warnings == ()


def test_exactly_64_kb_passes_and_one_byte_more_is_refused_with_its_size():
    padding = MAX_SOURCE_BYTES - len(HEAD)
    check_candidate(HEAD + b"#" * padding, None)
    assert "65537 bytes; the limit is 65536" in refusal(HEAD + b"#" * (padding + 1))


def test_bytes_that_are_not_utf_8_are_refused_with_the_line():
    assert "not UTF-8 in line 6" in refusal(HEAD + b"x = '\xff'\n")


def test_a_nul_byte_is_refused_with_the_line():
    assert "NUL byte in line 6" in refusal(HEAD + b"x = '\0'\n")


@pytest.mark.parametrize("cookie", [b"# coding: latin-1\n", b"# -*- coding: utf-7 -*-\n", b"# coding: nonsense\n"])
def test_another_declared_encoding_is_refused_because_other_text_would_run(cookie):
    assert "encoding" in refusal(cookie + HEAD)


def test_utf_8_with_or_without_its_mark_passes():
    assert check_candidate(b"# coding: utf-8\n" + HEAD, None).lines == 4
    assert check_candidate(b"\xef\xbb\xbfNAME = 'gr\xc3\xbcn'\n" + HEAD, None).constants == {"NAME": "'grün'"}


def test_carriage_returns_are_line_ends():
    facts = check_candidate(HEAD.replace(b"\n", b"\r\n") + b"DEPTH = 4\r\n", None)
    assert (facts.lines, facts.constants) == (5, {"DEPTH": "4"})


@pytest.mark.parametrize(
    ("code", "line"), [(b"x = (\n", 6), (b"\ndef f(:\n", 7), (b"return 3\n", 6), (b"  x = 1\n", 6), (b"x = 08\n", 6)]
)
def test_a_syntax_error_is_refused_with_line_and_message(code, line):
    assert f"does not parse: line {line}: " in refusal(HEAD + code)


@pytest.mark.filterwarnings("error")
def test_a_doubtful_escape_is_no_syntax_error():
    check_candidate(HEAD + b"pattern = '\\d'\n", None)


@pytest.mark.parametrize(
    "code",
    [
        b"-" * 60_000 + b"1",
        b"not " * 15_000 + b"1",
        b"(" * 30_000 + b")" * 30_000,
        b"a" + b".b" * 30_000,
        b"1" + b"+1" * 30_000,
        b"a" + b"()" * 30_000,
        b"x = " + b"a if b else " * 5_000 + b"1",
        b"lambda: " * 8_000 + b"1",
    ],
)
def test_source_nested_too_deeply_is_refused(code):
    message = refusal(HEAD + code + b"\n")
    assert "nested too deeply" in message or "too many nested" in message


def test_a_number_of_absurd_length_is_refused():
    assert "does not parse" in refusal(HEAD + b"x = " + b"9" * 60_000 + b"\n")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"import transformers\n", "transformers"),
        (b"import os, flash_attn.ops\n", "flash_attn.ops"),
        (b"from einops import rearrange\n", "einops"),
        (b"def f():\n    import torchvision\n", "torchvision"),
        (b"import autoresearch_mcp.prepare\n", "autoresearch_mcp.prepare"),
    ],
)
def test_an_import_outside_the_list_is_refused_with_line_and_name(code, name):
    message = refusal(HEAD + code)
    assert f"imports {name};" in message
    assert "line 6" in message or "line 7" in message


@pytest.mark.parametrize("code", [b"from . import prepare\n", b"from .prepare import SEED\n", b"from .. import lab\n"])
def test_a_relative_import_is_refused(code):
    assert "line 6 has a relative import" in refusal(HEAD + code)


def test_the_standard_library_numpy_torch_and_prepare_pass():
    check_candidate(
        b"from __future__ import annotations\nimport math, os.path\nimport numpy as np\n"
        b"import torch.nn.functional as F\nfrom torch.optim import AdamW\nimport prepare.loader\n" + HEAD,
        None,
    )


def test_a_file_that_imports_nothing_from_prepare_is_refused():
    source = b"def make_dataloader(): pass\ndef evaluate_bpb(): pass\nmake_dataloader()\nevaluate_bpb()\n"
    assert "does not import from prepare" in refusal(source)


@pytest.mark.parametrize("name", ["make_dataloader", "evaluate_bpb"])
def test_a_missing_call_of_the_contract_is_refused_by_name(name):
    source = b"\n".join(line for line in HEAD.split(b"\n") if name.encode() + b"(" not in line)
    assert f"never calls {name}(...)" in refusal(source)


def test_a_name_in_a_comment_or_text_is_no_call():
    source = HEAD.replace(b"evaluate_bpb(None, None, 8)", b"# evaluate_bpb(\ntext = 'evaluate_bpb(1)'")
    assert "never calls evaluate_bpb" in refusal(source)


def test_calls_through_the_module_or_another_name_count():
    check_candidate(b"import prepare\nprepare.make_dataloader(1)\nprepare.evaluate_bpb(2)\n", None)
    check_candidate(
        b"from prepare import make_dataloader as load, evaluate_bpb as finish\nload(1)\ndef main():\n    finish(2)\n",
        None,
    )


def test_four_kb_of_new_text_pass_and_one_byte_more_is_refused_with_the_amount():
    text = b"x" * MAX_NEW_LITERAL_BYTES
    check_candidate(HEAD + b"t = '" + text + b"'\n", HEAD)
    message = refusal(HEAD + b"t = '" + text + b"y'\n", HEAD)
    assert "4097 bytes of literal data" in message
    assert "the limit is 4096" in message


def test_a_baseline_has_no_limit_on_literal_data():
    check_candidate(HEAD + b"t = '" + b"x" * 10_000 + b"'\n", None)


@pytest.mark.parametrize(
    "code",
    [
        b"table = [" + b"7," * 5_000 + b"]\n",
        b"table = [" + b"0.5," * 600 + b"]\n",
        b"number = 0x" + b"f" * 9_000 + b"\n",
        b"data = b'" + b"z" * 5_000 + b"'\n",
        b"'''" + b"doc " * 1_500 + b"'''\n",
        b"x = 1\ntext = f'" + b"a" * 3_000 + b"{x}" + b"b" * 3_000 + b"'\n",
        b"".join(b"a%d = '%040d'\n" % (i, i) for i in range(200)),
    ],
)
def test_every_kind_of_literal_counts(code):
    assert "bytes of literal data" in refusal(HEAD + code, HEAD)


def test_literals_of_the_parent_are_not_new_but_each_counts_once():
    block = b"'" + b"x" * 3_000 + b"'"
    parent = HEAD + b"a = " + block + b"\n"
    check_candidate(HEAD + b"b = " + block + b"\n", parent)
    check_candidate(HEAD + b"b = [" + block + b", " + block + b"]\n", parent)
    assert "6000 bytes" in refusal(HEAD + b"b = [" + block + b", " + block + b", " + block + b"]\n", parent)


def test_equal_values_of_other_types_are_new():
    parent = HEAD + b"a = [" + b"1," * 600 + b"]\n"
    assert "4800 bytes" in refusal(HEAD + b"a = [" + b"1.0," * 600 + b"]\n", parent)


def test_a_parent_that_does_not_parse_has_no_literals():
    check_candidate(HEAD, b"def (")
    assert "literal data" in refusal(HEAD + b"t = '" + b"x" * 5_000 + b"'\n", b"def (")


def test_lines_leave_out_blank_lines_comments_and_docstrings():
    source = HEAD + b'"""A text\nover lines."""\n\n# note\n   # note\ndef f():\n    """Doc."""  # note\n    return 1  # one\n'
    assert check_candidate(source, None).lines == 6


def test_code_cannot_hide_from_the_count_behind_a_text():
    assert check_candidate(HEAD + b'""; x = 1\nx = 2; ""\n', None).lines == 6


def test_constants_are_the_capitals_assigned_at_the_top_level():
    source = HEAD + (
        b"DEPTH = 4  # layers\nWIDTH: int = 2 * 64\nBETAS = (\n    0.9,\n    0.95,\n)\nlr = 0.1\nA, B = 1, 2\n"
        b"Mixed = 3\nDEPTH = 6\nif DEPTH:\n    INNER = 1\nNOTE: str\n"
    )
    assert check_candidate(source, None).constants == {
        "DEPTH": "6",
        "WIDTH": "2 * 64",
        "BETAS": "(\n    0.9,\n    0.95,\n)",
    }


def test_changed_constants_show_old_and_new():
    parent = check_candidate(HEAD + b"DEPTH = 4\nWIDTH = 128\nGONE = 1\n", None)
    child = check_candidate(HEAD + b"DEPTH = 6\nWIDTH = 128\nNEW = 'a'\n", None)
    assert changed_constants(parent, child) == {"DEPTH": ("4", "6"), "GONE": ("1", None), "NEW": (None, "'a'")}


def test_nothing_of_a_candidate_is_executed(tmp_path):
    marker = tmp_path / "ran"
    check_candidate(HEAD + f"open({str(marker)!r}, 'w')\n".encode(), HEAD)
    assert not marker.exists()


def test_a_64_kb_file_is_checked_in_a_fraction_of_a_second():
    source = realistic_source(MAX_SOURCE_BYTES)
    assert len(source) > 60_000
    parent = source.replace(b"self", b"this")
    check_candidate(parent, None)
    started = time.process_time()
    check_candidate(source, parent)
    assert time.process_time() - started < 0.3  # 0.05 s where it was measured; slow machines share CI


@pytest.mark.parametrize(
    "code", [b"a = [" + b"1," * 32_000 + b"]\n", b"a\n" * 32_000, b"f'" + b"{a}b" * 12_000 + b"'\n", b"A=1;" * 16_000]
)
def test_the_densest_source_is_answered_within_the_two_seconds_of_a_tool_call(code):
    started = time.process_time()
    check_candidate(HEAD + code, None)
    assert time.process_time() - started < 2


def test_a_diff_of_equal_bytes_is_empty():
    assert unified_diff(HEAD, HEAD) == ""


def test_a_diff_names_the_file_and_shows_the_change():
    diff = unified_diff(b"a\nb\nc\n", b"a\nB\nc\n")
    assert diff == "--- a/trainer/train.py\n+++ b/trainer/train.py\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
    assert unified_diff(b"", b"x\n", name="other.py").startswith("--- a/other.py\n+++ b/other.py\n@@ -0,0 +1 @@\n")


def test_a_diff_shows_a_missing_last_newline_and_foreign_bytes():
    assert unified_diff(b"a", b"a\n").endswith("-a\n\\ No newline at end of file\n+a\n")
    assert "+\ufffd" in unified_diff(b"", b"\xff\n")
    assert "-a\r\n+a\n" in unified_diff(b"a\r\n", b"a\n")


def test_a_diff_of_scattered_edits_is_the_one_that_difflib_makes():
    source = realistic_source(30_000)
    lines = source.decode().splitlines(keepends=True)
    edited = list(lines)
    for index in random.Random(0).sample(range(len(lines)), 40):
        edited[index] = f"    edit {index}\n"
    expected = difflib.unified_diff(lines, edited, "a/trainer/train.py", "b/trainer/train.py")
    assert unified_diff(source, "".join(edited).encode()) == "".join(expected)


def test_a_diff_that_cannot_be_aligned_quickly_is_coarse_but_right_and_quick():
    rng = random.Random(0)
    words = [b"%05d\n" % number for number in range(10_000)]
    repeated = [rng.choice(words[:110]) for _ in range(10_000)], [rng.choice(words[:110]) for _ in range(10_000)]
    for old, new in ((words, words[::-1]), repeated):
        started = time.process_time()
        diff = unified_diff(b"".join(old), b"".join(new)).splitlines()[2:]
        assert time.process_time() - started < 2
        hunks = [line for line in diff if not line.startswith("@@")]
        shown = [line[1:] for line in hunks if line[0] in " +"]
        assert len(shown) <= len(new)
        removed = [line for line in hunks if line[0] == "-"]
        added = [line for line in hunks if line[0] == "+"]
        assert len(old) - len(removed) == len(new) - len(added)


@pytest.mark.parametrize("hidden", ["\r", "\x0c", "\x1b[2K", "\x85", "\u202e", "\u2028"])
def test_what_hides_from_a_reader_what_a_change_does_is_refused_and_an_old_one_is_shown_in_a_diff(hidden: str) -> None:
    source = HEAD + f"# a comment{hidden}WIDTH = 3\n".encode()
    check_candidate(source, None)  # what a human begins with
    assert f"U+{ord(hidden[0]):04X} in line {source.count(10)}," in refusal(source, HEAD)
    (added,) = [line for line in unified_diff(HEAD, source).splitlines() if line.startswith("+# ")]
    assert added == f"+# a comment{ascii(hidden[0])[1:-1]}{hidden[1:]}WIDTH = 3"


def test_ends_of_lines_and_what_is_only_foreign_are_not_refused() -> None:
    source = HEAD.replace(b"\n", b"\r\n") + "# \ttabs, Grüße, 你好\r\n".encode()
    check_candidate(source, HEAD)
    check_candidate(b"\xef\xbb\xbf" + source, HEAD)
