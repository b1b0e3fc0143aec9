from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from autoresearch_mcp.prepare.building import prepare_corpus
from autoresearch_mcp.prepare.catalog import KNOWN_CORPORA, named_source
from autoresearch_mcp.prepare.corpus import open_corpus
from autoresearch_mcp.prepare.errors import DiskFullError, DownloadError, LibraryMissingError, PrepareError
from autoresearch_mcp.prepare.hub import HubDataset, HubSource, Shard
from autoresearch_mcp.prepare.sources import Project
from typer.testing import CliRunner

REVISION = "0123456789abcdef0123456789abcdef01234567"
DATASET = HubDataset(
    name="tiny",
    repo="somebody/tiny",
    revision=REVISION,
    train=tuple(Shard(file=f"shard_{index}.parquet") for index in range(3)),
    default_shards=2,
    val=Shard(file="val.parquet"),
    test=Shard(file="test.parquet"),
)
FILES = [*(shard.file for shard in DATASET.train), "val.parquet", "test.parquet"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few kilobytes arrive in several pieces, as a hundred megabytes do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)


@pytest.fixture
def filled(hub, make_parquet, make_documents):
    """The hub with every file of the dataset."""
    hub.files |= {name: make_parquet(make_documents(name)) for name in FILES}
    return hub


def source(shards: int | None = None, dataset: HubDataset = DATASET) -> HubSource:
    return HubSource(dataset, shards, back_off_seconds=0.0)


def folder(cache: Path) -> Path:
    return cache / ".hub" / "somebody--tiny" / REVISION


def fetch(shards: int | None = None) -> tuple[Project, ...]:
    return source(shards).fetch(Path("unused"), lambda _fraction, _detail="": None)


def test_shards_become_a_corpus_with_their_documents_and_the_hashes_of_the_hub(filled, make_documents):
    corpus = prepare_corpus("tiny", source=source())
    assert corpus.text("train").tobytes().decode() == "".join(
        make_documents("shard_0.parquet") + make_documents("shard_1.parquet")
    )
    assert corpus.text("val").tobytes().decode() == "".join(make_documents("val.parquet"))
    assert corpus.text("test").tobytes().decode() == "".join(make_documents("test.parquet"))
    assert corpus.manifest.source == source().key
    assert [(p.name, p.version, p.sha256, p.split) for p in corpus.manifest.projects] == [
        (name, REVISION, hashlib.sha256(filled.files[name]).hexdigest(), split)
        for name, split in {
            "shard_0.parquet": "train",
            "shard_1.parquet": "train",
            "val.parquet": "val",
            "test.parquet": "test",
        }.items()
    ]


def test_what_is_prepared_is_recognised_without_a_request(filled):
    corpus = prepare_corpus("tiny", source=source())
    filled.requests.clear()
    assert prepare_corpus("tiny", source=source()) == corpus
    assert filled.requests == []


def test_more_shards_are_another_corpus_and_only_the_new_one_is_fetched(filled):
    two = prepare_corpus("tiny", source=source(2))
    filled.requests.clear()
    three = prepare_corpus("tiny", source=source(3))
    assert three.corpus_id != two.corpus_id
    assert three.manifest.splits["val"] == two.manifest.splits["val"]
    assert filled.seen("content") == ["GET shard_2.parquet"]
    filled.requests.clear()
    assert prepare_corpus("tiny", source=source(2)).corpus_id == two.corpus_id
    assert filled.requests == []


def test_the_token_is_for_the_hub_and_not_for_where_it_redirects_to(filled):
    fetch()
    assert {token for place, _, _, token in filled.requests if place == "hub"} == {"Bearer hf_test_token"}
    assert {token for place, _, _, token in filled.requests if place == "content"} == {None}


@pytest.mark.parametrize("fault", ["truncate", "whole", 503, 500])
def test_a_transfer_that_breaks_continues_where_it_was(filled, cache: Path, fault):
    filled.faults["val.parquet"] = ["truncate", fault]
    fetch()
    assert (folder(cache) / "val.parquet").read_bytes() == filled.files["val.parquet"]
    ranges = [asked for place, what, asked, _ in filled.requests if place == "content" and what == "GET val.parquet"]
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len(filled.files['val.parquet']) // 2}-"


def test_a_connection_that_drops_in_the_middle_is_taken_up_again(filled, cache: Path):
    filled.faults["val.parquet"] = ["drop"]
    fetch()
    assert (folder(cache) / "val.parquet").read_bytes() == filled.files["val.parquet"]
    ranges = [asked for place, what, asked, _ in filled.requests if place == "content" and what == "GET val.parquet"]
    assert len(ranges) == 2
    assert ranges[1] is not None


def test_changed_bytes_are_noticed_and_fetched_again(filled, cache: Path):
    filled.faults["shard_0.parquet"] = ["corrupt"]
    fetch()
    assert (folder(cache) / "shard_0.parquet").read_bytes() == filled.files["shard_0.parquet"]
    assert filled.seen("content").count("GET shard_0.parquet") == 2


def test_bytes_that_are_always_changed_are_refused_with_both_hashes(filled, cache: Path):
    filled.faults["shard_0.parquet"] = ["corrupt"] * 9
    with pytest.raises(DownloadError, match=r"shard_0\.parquet arrived 3 times with other bytes") as caught:
        fetch()
    assert hashlib.sha256(filled.files["shard_0.parquet"]).hexdigest() in str(caught.value)
    assert not (folder(cache) / "shard_0.parquet").exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_is_busy_is_asked_again(filled, cache: Path, status: int):
    filled.hub_faults["test.parquet"] = [(status, ""), (status, "")]
    fetch()
    assert (folder(cache) / "test.parquet").exists()


def test_a_hub_that_stays_busy_is_given_up_with_what_to_do(filled):
    filled.hub_faults["test.parquet"] = [(503, "")] * 9
    with pytest.raises(DownloadError) as caught:
        fetch()
    message = str(caught.value)
    assert "in 6 tries" in message
    assert "503" in message
    assert "HF_ENDPOINT" in message
    assert "`autoresearch prepare --corpus tiny`" in message
    assert "--from DIR" in message


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "GatedRepo", ["somebody/tiny", "a token is set", "HF_TOKEN", "/datasets/somebody/tiny"]),
        (401, "RepoNotFound", ["HF_TOKEN", "does not exist"]),
        (403, "GatedRepo", ["HF_TOKEN", "Accept its terms"]),
        (404, "EntryNotFound", ["no shard_0.parquet", "404", "HF_ENDPOINT", "--from DIR"]),
        (404, "RevisionNotFound", [REVISION[:12], "404"]),
        (410, "", ["410", "shard_0.parquet"]),
    ],
)
def test_a_refusal_is_final_and_names_the_next_step(filled, status: int, code: str, said: list[str]):
    filled.hub_faults["shard_0.parquet"] = [(status, code)]
    with pytest.raises(DownloadError) as caught:
        fetch()
    assert all(part in str(caught.value) for part in said), str(caught.value)
    assert len(filled.requests) == 1


def test_a_missing_token_is_said(filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    filled.hub_faults["shard_0.parquet"] = [(401, "GatedRepo")]
    with pytest.raises(DownloadError, match="no token is set"):
        fetch()
    assert {token for _, _, _, token in filled.requests} == {None}


def test_no_network_names_proxy_and_mirror(cache: Path, hub, monkeypatch: pytest.MonkeyPatch):
    hub.close()
    with pytest.raises(DownloadError, match=r"Check the network and the proxy \(HTTPS_PROXY\), or set HF_ENDPOINT to a mirror"):
        fetch()


def test_offline_mode_is_said_and_does_not_matter_for_what_is_here(filled, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    fetch(1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    filled.requests.clear()
    fetch(1)
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is set, and shard_1\.parquet is not here yet: unset it"):
        fetch(2)
    assert filled.requests == []


def test_an_endpoint_that_is_no_hub_or_serves_another_commit_is_refused(filled):
    filled.commit = "f" * 40
    with pytest.raises(DownloadError, match="does not answer as the Hugging Face hub does") as caught:
        fetch()
    assert "f" * 40 in str(caught.value)


def test_a_later_process_continues_a_part_and_a_part_that_is_too_long_is_started_again(filled, cache: Path):
    folder(cache).mkdir(parents=True)
    content = filled.files["val.parquet"]
    (folder(cache) / "val.parquet.partial").write_bytes(content[:700])
    (folder(cache) / "test.parquet.partial").write_bytes(b"x" * (len(filled.files["test.parquet"]) + 5))
    fetch()
    asked = {what: asked for place, what, asked, _ in filled.requests if place == "content"}
    assert asked["GET val.parquet"] == "bytes=700-"
    assert asked["GET test.parquet"] is None
    assert {path.name for path in folder(cache).iterdir()} == {
        ".lock",
        *(f"{name}{end}" for name in FILES if name != "shard_2.parquet" for end in ("", ".sha256")),
    }


def test_an_interrupted_download_keeps_what_arrived(filled, cache: Path):
    def interrupt(_fraction: float, detail: str = "", /) -> None:
        if "MB, val.parquet" in detail and (folder(cache) / "val.parquet.partial").stat().st_size > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source().fetch(Path("unused"), interrupt)
    assert (folder(cache) / "val.parquet.partial").stat().st_size > 0
    filled.requests.clear()
    fetch()
    assert filled.seen("content") == ["GET val.parquet", "GET test.parquet"]


@pytest.mark.parametrize("damage", ["changed", "unchecked"])
def test_a_kept_file_is_read_again_before_it_is_believed(filled, cache: Path, damage: str):
    fetch()
    filled.requests.clear()
    path = folder(cache) / "val.parquet"
    if damage == "changed":
        path.write_bytes(b"other" + path.read_bytes()[5:])
    else:
        (folder(cache) / "val.parquet.sha256").unlink()
    fetch()
    assert path.read_bytes() == filled.files["val.parquet"]
    assert filled.seen("content") == (["GET val.parquet"] if damage == "changed" else [])


def test_two_processes_fetch_every_file_once(filled, cache: Path):
    waiting = threading.Event()

    def second() -> None:
        source().fetch(Path("unused"), lambda _fraction, detail="": waiting.set() if "waiting" in detail else None)

    thread = threading.Thread(target=second)

    def first(_fraction: float, _detail: str = "", /) -> None:
        if not thread.ident:
            thread.start()
            assert waiting.wait(30)

    source().fetch(Path("unused"), first)
    thread.join(30)
    assert sorted(filled.seen("content")) == sorted(f"GET {name}" for name in FILES if name != "shard_2.parquet")


def test_progress_tells_bytes_and_rises_to_one(filled):
    steps: list[tuple[float, str]] = []
    source().fetch(Path("unused"), lambda fraction, detail="": steps.append((fraction, detail)))
    total = sum(len(filled.files[name]) for name in FILES if name != "shard_2.parquet")
    fractions = [fraction for fraction, _ in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert (0.0, f"0.0 of {total / 1e6:.1f} MB, shard_0.parquet") in steps
    assert len(steps) > 8


def test_too_little_room_is_said_before_anything_is_fetched(filled, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match="take fewer `--shards`, or set AUTORESEARCH_CACHE"):
        fetch()
    assert filled.seen("content") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_fills_up_on_the_way_is_said(filled, cache: Path):
    folder(cache).mkdir(parents=True)
    (folder(cache) / "val.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="free some space, or set AUTORESEARCH_CACHE"):
        prepare_corpus("tiny", source=source())
    assert filled.seen("content").count("GET val.parquet") == 1


@pytest.mark.parametrize("library", ["huggingface_hub", "pyarrow"])
def test_a_missing_library_names_the_command_that_installs_it(library: str, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LibraryMissingError, match="pip install huggingface_hub pyarrow"):
        fetch()


def test_empty_documents_are_left_out_and_rows_are_taken_as_asked(hub, make_parquet, make_documents: Callable[..., list[str]]):
    texts = make_documents("all", 23)
    with_gaps: list[str | None] = [*texts]
    with_gaps[3], with_gaps[12] = None, ""
    hub.files["all.parquet"] = make_parquet(with_gaps)
    dataset = HubDataset(
        name="rows",
        repo="somebody/rows",
        revision=REVISION,
        train=(Shard(file="all.parquet", first_row=9),),
        default_shards=1,
        val=Shard(file="all.parquet", first_row=5, stop_row=9),
        test=Shard(file="all.parquet", stop_row=5),
    )
    corpus = prepare_corpus("rows", source=source(dataset=dataset))
    assert corpus.text("test").tobytes().decode() == "".join(texts[:3] + texts[4:5])
    assert corpus.text("val").tobytes().decode() == "".join(texts[5:9])
    assert corpus.text("train").tobytes().decode() == "".join(texts[9:12] + texts[13:])
    assert len({project.sha256 for project in corpus.manifest.projects}) == 1
    assert hub.seen("content") == ["GET all.parquet"]


def test_a_file_without_the_column_or_that_is_no_parquet_is_named(filled, make_parquet, make_documents):
    filled.files["val.parquet"] = make_parquet(make_documents("val"), column="story")
    with pytest.raises(PrepareError, match=r"val\.parquet has no column 'text' that holds text; its columns are story"):
        prepare_corpus("tiny", source=source())
    filled.files["shard_0.parquet"] = b"not a table" * 100
    shutil.rmtree(folder(Path(os.environ["AUTORESEARCH_CACHE"])))
    with pytest.raises(PrepareError, match=r"shard_0\.parquet cannot be read as a Parquet file"):
        prepare_corpus("tiny", source=source())


def test_held_out_rows_cannot_be_in_train():
    with pytest.raises(ValueError, match="is held out and shares rows with"):
        HubDataset(
            name="wrong",
            repo="a/b",
            revision=REVISION,
            train=(Shard(file="x", first_row=4),),
            default_shards=1,
            val=Shard(file="x", stop_row=5),
            test=Shard(file="y"),
        )


@pytest.mark.parametrize("shards", [0, -1, 4])
def test_a_number_of_shards_that_there_is_not_is_refused(shards: int):
    with pytest.raises(ValueError, match=f"comes in 1 to 3 training shards, {shards} is not possible"):
        source(shards)


def test_climbmix_is_pinned_and_validation_and_test_are_upstreams_last_shards():
    climbmix = named_source("climbmix")
    assert isinstance(climbmix, HubSource)
    dataset = climbmix.dataset
    assert (dataset.val.file, dataset.test.file) == ("shard_06542.parquet", "shard_06541.parquet")
    assert [shard.file for shard in dataset.train[:10]] == [f"shard_{index:05d}.parquet" for index in range(10)]
    assert len(dataset.train) == 6541
    assert climbmix.shards == 10
    assert climbmix.key != named_source("climbmix", shards=4).key


def test_without_a_number_the_prepared_one_stays():
    four = named_source("climbmix", shards=4)
    assert named_source("climbmix", prepared=four.key).key == four.key
    assert named_source("climbmix", prepared="folder:abc").key == named_source("climbmix").key
    assert named_source("climbmix", shards=2, prepared=four.key).key == named_source("climbmix", shards=2).key


def test_names_that_are_not_known_are_refused_with_those_that_are():
    with pytest.raises(ValueError, match=", ".join(KNOWN_CORPORA)):
        named_source("shakespeare")
    with pytest.raises(ValueError, match="'wheels' does not come in shards"):
        named_source("wheels", shards=2)
    with pytest.raises(ValueError, match="'tinystories' comes in one training shard"):
        named_source("tinystories", shards=2)


def test_climbmix_is_prepared_end_to_end_at_the_sizes_of_the_gpu_profile(hub, make_parquet, make_documents):
    from autoresearch_mcp.lab.config import PROFILES

    dataset = named_source("climbmix", shards=2)
    assert isinstance(dataset, HubSource)
    names = ["shard_00000.parquet", "shard_00001.parquet", "shard_06541.parquet", "shard_06542.parquet"]
    hub.files |= {name: make_parquet(make_documents(name, 40), rows_per_group=1024) for name in names}
    steps: list[tuple[str, float, str]] = []
    corpus = prepare_corpus("climbmix", source=dataset, progress=lambda *step: steps.append(step))
    wanted = PROFILES["gpu"].vocab_size
    sizes = corpus.manifest.vocab_sizes
    assert corpus.token_store(max(size for size in sizes if size <= wanted)).stat().st_size > 0
    assert [path.name for path in (corpus.path / "stores").glob("*.bin")] == [f"train-{max(sizes)}.bin"]
    assert any("MB, shard_00001.parquet" in detail for stage, _, detail in steps if stage == "download")
    assert open_corpus("climbmix") == prepare_corpus("climbmix")  # with two shards, as it is prepared
    corpus.verify()


def test_tinystories_is_one_file_whose_rows_its_card_divides(hub, make_parquet):
    stories = [f"Once upon a time number {number} met number {number * 7919 % 100_003}." for number in range(22_000)]
    for first in (0, 10_000):  # of each held-out split, one that scoring can take
        stories[first] += " They met again." * 40
    hub.files["tinystories_gpt4_clean.parquet"] = make_parquet(stories, rows_per_group=4096)
    corpus = prepare_corpus("tinystories")
    texts = {"test": stories[:10_000], "val": stories[10_000:20_000], "train": stories[20_000:]}
    for split, expected in texts.items():
        assert corpus.manifest.splits[split].documents == len(expected)
        assert corpus.text(split).tobytes() == "".join(expected).encode()
    assert hub.seen("content").count("GET tinystories_gpt4_clean.parquet") == 1
    assert prepare_corpus("tinystories") == corpus


def test_the_command_fetches_says_what_it_replaces_and_prints_the_corpus(hub, make_parquet, make_documents):
    from autoresearch_mcp.server.cli.application import app

    names = ["shard_00000.parquet", "shard_00001.parquet", "shard_06541.parquet", "shard_06542.parquet"]
    hub.files |= {name: make_parquet(make_documents(name)) for name in names}
    call = partial(CliRunner().invoke, app, env={"COLUMNS": "400"})
    two = json.loads(call(["prepare", "--corpus", "climbmix", "--shards", "2", "--json"]).stdout)
    assert two["id"] == open_corpus("climbmix").corpus_id
    assert two["replaced"] is None
    hub.requests.clear()
    result = call(["prepare", "--corpus", "climbmix", "--shards", "1", "--json"])
    one = json.loads(result.stdout)
    assert (one["replaced"], hub.requests) == (two["id"], [])
    assert one["id"] not in (two["id"], None)
    assert f"({two['id']}) was made from {two['source']}; making it again from {one['source']}." in result.stderr
    text = call(["prepare", "--corpus", "climbmix"]).stdout
    assert f"The corpus climbmix ({one['id']}) is ready." in text
    assert "train=1,val=shard_06542.parquet,test=shard_06541.parquet" in text
