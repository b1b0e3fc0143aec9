"""The port's loader packs as upstream's does: full rows that begin with BOS, the longest document that fits, nothing lost."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from autoresearch_mcp.lab.candidate import check_candidate
from autoresearch_mcp.server.bench.contenders import NAMES, OURS, PORT, SAME_MODEL, contender, with_sizes_of

BOS = 99
RECIPE = Path(__file__).parents[3] / "server" / "bench" / "upstream_recipe.py"


def loader(**constants: int) -> Any:
    """The loader's functions alone: the file itself is a candidate, which trains when it is imported."""
    wanted = {"cut_documents", "documents", "best_fit_batches"}
    tree = ast.parse(RECIPE.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names: dict[str, Any] = {"np": np, "DOCUMENT_BUFFER": 1000, "SHARD_TOKENS": 2**25, **constants}
    exec(compile(tree, str(RECIPE), "exec"), names)
    return SimpleNamespace(**{name: names[name] for name in wanted})


def store(*lengths: int) -> np.ndarray:
    """A token store of documents of these lengths, whose tokens count up from 100."""
    tokens, number = [], 100
    for length in lengths:
        tokens += [BOS, *range(number, number + length)]
        number += length
    return np.array(tokens, dtype=np.uint16)


def test_every_row_is_full_and_begins_with_bos() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 300).tolist()
    batches = loader(DOCUMENT_BUFFER=50).best_fit_batches(store(*lengths), 4, 32, BOS, seed=1)
    for _ in range(100):
        rows, _ = next(batches)
        assert rows.shape == (4, 33)
        assert rows.dtype == np.int64
        assert (rows[:, 0] == BOS).all()
        assert ((rows == BOS) | (rows >= 100)).all()


def test_the_longest_document_that_fits_goes_first() -> None:
    batches = loader(DOCUMENT_BUFFER=4).best_fit_batches(store(9, 5, 3, 2), 1, 15, BOS, seed=1)
    rows, _ = next(batches)
    # 16 tokens: the 9 with its BOS, and then of what is left for 6 the 5 with its own.
    assert rows[0].tolist() == [BOS, *range(100, 109), BOS, *range(109, 114)]


def test_where_nothing_fits_the_shortest_document_is_cropped() -> None:
    batches = loader(DOCUMENT_BUFFER=2).best_fit_batches(store(9, 7), 1, 11, BOS, seed=1)
    rows, _ = next(batches)
    assert rows[0, :10].tolist() == [BOS, *range(100, 109)]
    assert rows[0, 10] == BOS
    assert rows[0, 11] in (100, 109)  # the document is cut after its first token, whichever was the shortest by then


def test_a_document_longer_than_a_row_is_cut_and_none_of_it_is_lost() -> None:
    tokens = store(70, 4, 0, 31)
    starts, lengths = loader().cut_documents(tokens, BOS, 32)
    assert sorted(lengths.tolist()) == [4, 8, 31, 31, 31]
    seen = np.concatenate([tokens[start : start + length] for start, length in zip(starts, lengths, strict=True)])
    assert sorted(seen.tolist()) == list(range(100, 205))


def test_an_epoch_has_every_document_once_in_an_order_of_its_seed() -> None:
    def epoch(seed: int) -> list[tuple[int, ...]]:
        documents, found = loader().documents(store(*range(1, 30)), BOS, 64, seed), []
        while (document := next(documents))[1] == 1:
            found.append(tuple(document[0].tolist()))
        return found

    first, same, other = epoch(1), epoch(1), epoch(2)
    assert first == same
    assert first != other
    assert sorted(first) == sorted(other)
    assert len(first) == 29


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("name", NAMES)
def test_every_contender_is_a_fair_candidate(name: str, profile: str) -> None:
    assert check_candidate(contender(name, profile).source, None).warnings == ()


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_same_model_has_the_sizes_of_ours_and_is_the_port_in_everything_else(profile: str) -> None:
    ours, port, same = (contender(name, profile) for name in (OURS, PORT, SAME_MODEL))
    assert same.sizes == ours.sizes
    before, after = port.source.decode().splitlines(), same.source.decode().splitlines()
    changed = [new.partition(" = ")[0] for old, new in zip(before, after, strict=True) if old != new]
    assert set(changed) <= set(ours.sizes)


def test_upstreams_sizes_are_those_of_its_file_and_of_its_readme() -> None:
    gpu, cpu = contender(PORT, "gpu").sizes, contender(PORT, "cpu").sizes
    assert (gpu["DEPTH"], gpu["WIDTH"], gpu["HEAD_DIM"], gpu["VOCAB_SIZE"]) == (8, 512, 128, 8192)
    assert (gpu["TOTAL_BATCH_TOKENS"], cpu["TOTAL_BATCH_TOKENS"]) == (2**19, 2**14)
    assert (cpu["DEPTH"], cpu["WIDTH"]) == (4, 256)


def test_sizes_that_are_no_numbers_are_an_error_that_names_them() -> None:
    train = "DEPTH = 3\nWIDTH = 64 * DEPTH\n"
    with pytest.raises(Exception, match=r"WIDTH, .*--only ours --only port"):
        with_sizes_of(train, "", "cpu")
