from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.prepare import tokenizer as tokenizer_module
from autoresearch_mcp.prepare.tokenizer import SPLIT_PATTERN, VOCAB_SIZES, Tokenizer, save_ranks, sizes_for, train_ranks

# The source of the package: enough text for 1024 tokens, and always at hand.
TEXTS = [path.read_text() for path in sorted(Path(tokenizer_module.__file__).parent.glob("*.py"))]

HARD_TEXTS = [
    "",
    "a",
    "\n",
    "def f(x):\r\n\treturn x_1 + 1234567  # don't\r\n",
    "naïve Ωmega 日本語 😀👩‍👩‍👧 e\u0301 \u200b\u00a0\u2028 \x00\x01",
    " " * 300 + "x" + "\n" * 300 + "\t \n" * 100,
    "<|bos|> <|endoftext|>",
    "".join(map(chr, range(32, 0x800))),
]


@pytest.fixture(scope="module")
def ranks() -> list[bytes]:
    return train_ranks(TEXTS, 1024)


@pytest.fixture
def ranks_path(ranks: list[bytes], tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    save_ranks(path, ranks)
    return path


def test_training_gives_256_bytes_then_merges_and_leaves_one_id_for_bos(ranks: list[bytes]):
    assert len(ranks) == len(set(ranks)) == 1023
    assert ranks[:256] == [bytes([value]) for value in range(256)]
    assert train_ranks(iter(TEXTS), 1024) == ranks


def test_every_merge_joins_two_tokens_of_lower_rank(ranks: list[bytes]):
    rank_of = {token: rank for rank, token in enumerate(ranks)}
    for rank, token in enumerate(ranks[256:], start=256):
        cuts = ((rank_of.get(token[:i], rank), rank_of.get(token[i:], rank)) for i in range(1, len(token)))
        assert any(max(pair) < rank for pair in cuts), token


def test_a_smaller_size_is_what_training_at_that_size_gives(ranks: list[bytes]):
    assert train_ranks(TEXTS, 512) == ranks[:511]


@pytest.mark.parametrize("size", [257, 512, 1024])
def test_every_size_is_lossless_and_counts_bytes_exactly(ranks_path: Path, size: int):
    tokenizer = Tokenizer.from_file(ranks_path, size)
    for text in [*HARD_TEXTS, *TEXTS]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert int(tokenizer.token_bytes[ids].sum()) == len(text.encode())
        assert tokenizer.bos_token_id not in ids
    one_by_one = [tokenizer.encode(text) for text in HARD_TEXTS]
    assert tokenizer.encode_batch(HARD_TEXTS, 2) == one_by_one
    arrays = tokenizer.encode_arrays(HARD_TEXTS, 2)
    assert [array.tolist() for array in arrays] == [[tokenizer.bos_token_id, *ids] for ids in one_by_one]
    assert all(array.dtype == np.uint16 for array in arrays)


def test_the_byte_vocabulary_is_the_bytes_and_bos(ranks_path: Path):
    tokenizer = Tokenizer.from_file(ranks_path, 257)
    assert tokenizer.encode("né") == list("né".encode())
    assert tokenizer.get_vocab_size() == tokenizer.vocab_size == 257
    assert tokenizer.get_bos_token_id() == tokenizer.bos_token_id == 256


def test_larger_sizes_need_fewer_tokens(ranks_path: Path):
    lengths = [sum(map(len, Tokenizer.from_file(ranks_path, size).encode_batch(TEXTS))) for size in (257, 512, 1024)]
    assert lengths[0] > 1.5 * lengths[1] > 1.5 * lengths[2]


def test_token_bytes_is_int32_per_id_with_nothing_for_bos(ranks_path: Path, ranks: list[bytes]):
    lengths = Tokenizer.from_file(ranks_path, 512).token_bytes
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [*map(len, ranks[:511]), 0]


@pytest.mark.parametrize("text", [" " * 1_000_000 + "x", "\n" * 1_000_000, "a" * 1_000_000])
def test_a_very_long_run_does_not_break_the_regex_engine(ranks_path: Path, text: str):
    tokenizer = Tokenizer.from_file(ranks_path, 512)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decoding_a_cut_character_or_bos_works_and_an_unknown_id_does_not(ranks_path: Path):
    tokenizer = Tokenizer.from_file(ranks_path, 257)
    assert tokenizer.decode([256, 0x61, 0xC3]) == "a\ufffd"
    for unknown in (-1, 257):
        with pytest.raises(ValueError, match=f"token id {unknown} is outside"):
            tokenizer.decode([unknown])


def test_load_finds_the_file_that_the_referee_names(ranks_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTORESEARCH_TOKENIZER", str(ranks_path))
    assert Tokenizer.load(512).encode("for x in range") == Tokenizer.from_file(ranks_path, 512).encode("for x in range")


def test_load_without_a_referee_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUTORESEARCH_TOKENIZER", raising=False)
    with pytest.raises(RuntimeError, match="AUTORESEARCH_TOKENIZER is not set"):
        Tokenizer.load(512)


@pytest.mark.parametrize("size", [0, 256, 1000, 2048])
def test_a_size_that_is_not_prepared_is_refused_with_the_list(ranks_path: Path, size: int):
    with pytest.raises(ValueError, match=f"vocabulary size {size} is not prepared: choose one of 257, 512, 1024"):
        Tokenizer.from_file(ranks_path, size)


def test_the_sizes_are_those_the_ranks_suffice_for():
    assert sizes_for(8191) == VOCAB_SIZES
    assert sizes_for(8190) == VOCAB_SIZES[:-1]
    assert sizes_for(255) == ()


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="must be at least 257"):
        train_ranks(["text"], 256)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"format_version": 1, "pattern": SPLIT_PATTERN},
        {"format_version": 2, "pattern": SPLIT_PATTERN, "ranks": []},
        {"format_version": 1, "pattern": SPLIT_PATTERN, "ranks": ["AA=="]},
        {"format_version": 1, "pattern": SPLIT_PATTERN, "ranks": ["not base64!"]},
    ],
)
def test_a_file_that_is_no_ranks_file_is_refused_by_name(tmp_path: Path, fields: object):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a ranks file"):
        Tokenizer.from_file(path, 257)


def test_importing_the_data_modules_pulls_in_nothing_heavy():
    code = (
        "import sys, autoresearch_mcp.prepare.building, autoresearch_mcp.prepare.catalog\n"
        "print([m for m in ('torch', 'numpy', 'tiktoken', 'rustbpe', 'huggingface_hub', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
