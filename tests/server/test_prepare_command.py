"""`autoresearch prepare`: which corpus it means, what it refuses and why, and what it says."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.catalog import named_source
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus
from autoresearch_mcp.prepare.errors import CorpusDamagedError
from autoresearch_mcp.prepare.manifest import Manifest
from autoresearch_mcp.server.cli.application import app
from typer.testing import CliRunner, Result


@pytest.fixture
def corpora(tiny_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, with the corpus ``tiny``."""
    root = tmp_path / "cache"
    shutil.copytree(open_corpus(tiny_corpus).path, root / tiny_corpus)
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(root))
    monkeypatch.chdir(tmp_path)
    return root


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)], env={"COLUMNS": "400", "TERM": "dumb"})


def pretend(root: Path, name: str, source: str) -> Corpus:
    """Give the tiny corpus another name and origin."""
    if name != "tiny":
        shutil.copytree(root / "tiny", root / name)
    path = root / name / "manifest.json"
    fields = {**json.loads(path.read_text()), "corpus_name": name, "source": source}
    path.write_text(json.dumps(fields))
    assert Manifest.load(path).source == source
    return open_corpus(name)


def usage_error(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    return " ".join(result.stderr.replace("│", " ").split())


def test_a_prepared_corpus_is_printed_with_sizes_and_overlap(corpora: Path) -> None:
    result = call("--corpus", "tiny")
    assert result.exit_code == 0, result.stderr
    corpus = open_corpus("tiny")
    train = corpus.manifest.splits["train"]
    assert f"The corpus tiny ({corpus.corpus_id}) is ready." in result.stdout
    assert f"train {train.text_bytes / 1e6:9.1f} MB  {train.documents:9} documents\n" in result.stdout
    assert result.stdout.count("0.00% of its 13-token shingles occur in train\n") == 2
    assert "source words:1" in result.stdout
    assert str(corpora / "tiny") in result.stdout


def test_an_overlap_from_a_sample_says_so(corpora: Path) -> None:
    path = corpora / "tiny" / "manifest.json"
    fields = json.loads(path.read_text())
    fields["overlap_with_train"]["val"] = {"distinct_share": 0.0123, "occurrence_share": 0.02, "sampled_share": 0.04}
    path.write_text(json.dumps(fields))
    assert "1.23% of its 13-token shingles occur in train (of one in 25)\n" in call("--corpus", "tiny").stdout


def test_json_has_the_same_facts(corpora: Path) -> None:
    answer = json.loads(call("--corpus", "tiny", "--verify", "--json").stdout)
    manifest = open_corpus("tiny").manifest
    assert answer["corpus"] == "tiny"
    assert answer["id"] == manifest.corpus_id
    assert answer["source"] == "words:1"
    assert answer["replaced"] is None
    assert answer["splits"]["val"]["text_bytes"] == manifest.splits["val"].text_bytes
    assert answer["overlap_with_train"]["test"] == {"distinct_share": 0.0, "occurrence_share": 0.0, "sampled_share": 1.0}
    assert answer["vocab_sizes"] == list(manifest.vocab_sizes)


def test_inside_a_lab_it_is_the_labs_corpus_and_outside_the_default(corpora: Path, tmp_path: Path) -> None:
    pretend(corpora, "wheels", named_source("wheels").key)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "autoresearch.toml").write_text('[corpus]\nname = "tiny"\n')
    assert "The corpus tiny " in call("--lab", tmp_path / "lab").stdout
    assert "The corpus wheels " in call().stdout


def test_the_prepared_number_of_shards_stays_until_another_is_asked_for(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = pretend(corpora, "climbmix", named_source("climbmix", shards=4).key)
    result = call("--corpus", "climbmix")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"({four.corpus_id})" in result.stdout
    assert call("--corpus", "climbmix", "--shards", "4").exit_code == 0
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("autoresearch_mcp.prepare.hub_files._FAILURES_IN_A_ROW", 1)
    result = call("--corpus", "climbmix", "--shards", "2")
    assert result.exit_code == 1
    assert f"The corpus climbmix ({four.corpus_id}) was made from {four.manifest.source}; making it again from" in result.stderr
    assert "corpus climbmix: download" in result.stderr
    assert "HF_ENDPOINT" in result.stderr
    assert open_corpus("climbmix") == four  # nothing is lost when the new one cannot be made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corpus", "nope"], ["wheels, climbmix, tinystories", "`autoresearch prepare --corpus nope --from DIR`"]),
        (["--corpus", "wheels", "--shards", "2"], ["'wheels' does not come in shards", "leave out --shards"]),
        (["--shards", "2"], ["'wheels' does not come in shards"]),
        (["--corpus", "tinystories", "--shards", "2"], ["'tinystories' comes in one training shard"]),
        (["--corpus", "climbmix", "--shards", "6542"], ["1 to 6541 training shards"]),
        (["--corpus", "climbmix", "--shards", "0"], ["--shards"]),
        (["--corpus", "climbmix", "--from", "."], ["--from needs a name of its own", "[corpus] name"]),
        (["--from", "."], ["add `--corpus NAME`"]),
        (["--corpus", "mine", "--from", ".", "--shards", "2"], ["--shards 2 is for corpora from the hub"]),
        (["--corpus", "../up"], ["'../up' is not usable"]),
        (["--corpus", "nope", "--shards", "2"], ["no source is known for the corpus 'nope'"]),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_what_to_do(
    corpora: Path, arguments: list[str], said: list[str]
) -> None:
    message = usage_error(call(*arguments))
    assert all(part in message for part in said), message
    assert {path.name for path in corpora.iterdir()} == {"tiny"}


def test_a_folder_becomes_a_corpus_that_is_opened_by_its_name_afterwards(corpora: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghij", k=6)) for _ in range(2000)]
    mine = tmp_path / "texts"
    mine.mkdir()
    for index in range(80):
        lines = [" ".join(generator.choices(words, k=9)) for _ in range(240)]
        (mine / f"{index}.txt").write_text("\n".join(lines) + "\n")
    made = call("--corpus", "mine", "--from", mine, "--json")
    assert made.exit_code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert sum(split["documents"] for split in facts["splits"].values()) == 80
    assert "80 documents of 80 files" in made.stderr
    again = call("--corpus", "mine", "--verify")
    assert (again.exit_code, again.stderr) == (0, "")
    assert facts["id"] in again.stdout
    (mine / "0.txt").unlink()
    other = call("--corpus", "mine", "--from", mine, "--json")
    assert json.loads(other.stdout)["replaced"] == facts["id"]
    assert "making it again from folder:" in other.stderr


def test_a_damaged_corpus_from_a_folder_names_the_folder_option(corpora: Path) -> None:
    pretend(corpora, "tiny", "folder:0123")
    text = corpora / "tiny" / "val.txt"
    text.write_bytes(b"X" + text.read_bytes()[1:])
    assert call("--corpus", "tiny").exit_code == 0  # the size is right
    result = call("--corpus", "tiny", "--verify")
    assert result.exit_code == 1
    assert "val.txt is damaged" in result.stderr
    assert "`autoresearch prepare --corpus tiny --from DIR --verify`" in result.stderr


def test_a_manifest_of_the_format_before_is_refused_with_the_command(corpora: Path) -> None:
    path = corpora / "tiny" / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(CorpusDamagedError, match="format_version is 1, this version reads 2; run `autoresearch prepare`"):
        open_corpus("tiny")
    with pytest.raises(ValueError, match="--from DIR"):
        prepare_corpus("tiny")


def test_research_on_a_corpus_that_only_a_folder_can_give_names_the_command(
    make_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "empty"))
    result = CliRunner().invoke(app, ["research", "--lab", str(lab.root)], env={"COLUMNS": "400", "TERM": "dumb"})
    assert "`autoresearch prepare --corpus tiny --from DIR`" in usage_error(result)
