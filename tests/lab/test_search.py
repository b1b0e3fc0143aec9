"""The index of what was tried: any text is a question, and whatever happens to the index, the record answers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from autoresearch_mcp.lab.ledger import Ledger
from autoresearch_mcp.lab.search import find, similar_texts
from hypothesis import given
from hypothesis import strategies as st

PARENT = "import torch\n\nWIDTH = 16\nx = relu(x)\n"
SESSION = {
    "tag": "s",
    "researcher": "tester",
    "base_commit": "0" * 40,
    "base_sha256": "0" * 64,
    "group": "g",
    "config": "{}",
    "harness": "h",
    "program_sha256": "p" * 64,
}

Tried = Callable[..., str]


def record(ledger: Ledger, description: str, *, source: str = PARENT, hypothesis: str = "", lesson: str = "", **fields: object):
    """Record an experiment as the lab does, and revert it where there is a lesson; the first one is the baseline."""
    number = ledger.count_experiments() + 1
    experiment_id = f"e{number:04d}"
    blob = source.encode()
    event = {
        "id": experiment_id,
        "session": "s",
        "researcher": "tester",
        "parent": None if number == 1 else "e0001",
        "parent_version": 1,
        "description": description,
        "hypothesis": hypothesis,
        "candidate_sha256": hashlib.sha256(blob).hexdigest(),
        "commit": "0" * 40,
        "program_sha256": "p" * 64,
        "lines": 3,
        "lines_delta": 0,
        "theme": "other",
        "changes": "{}",
        "added": 0,
        "removed": 0,
        "rebase_of": None,
    }
    ledger.append("experiment_recorded", event | fields, blobs=(blob,))
    if lesson:
        ledger.append("experiment_reverted", {"id": experiment_id, "lesson": lesson})
    return experiment_id


@pytest.fixture
def ledger(tmp_path: Path):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.append("session_started", SESSION)
        record(ledger, "baseline")
        yield ledger


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "search.db"


@pytest.fixture
def ask(ledger: Ledger, index: Path) -> Callable[[str], list[str]]:
    """Return a function from a text to the ids of what it fits, in the order of the answer."""

    def ids(text: str) -> list[str]:
        matches = find(ledger, index, text)
        found = [experiment.id for experiment in ledger.experiments(matches.where, *matches.values)]
        assert matches.ranked is None or sorted(matches.ranked) == found
        return found if matches.ranked is None else list(matches.ranked)

    return ids


def test_everything_that_an_experiment_says_or_changes_is_found(ledger: Ledger, ask: Callable[[str], list[str]]) -> None:
    changed = {"changes": json.dumps({"WARMDOWN_FRACTION": ["0.5", "0.7"]}), "theme": "schedule"}
    tried = record(ledger, "a longer decay", hypothesis="anneals better", lesson="no room left", **changed)
    lines = record(ledger, "another norm", source=PARENT.replace("relu(x)", "RMSNorm(softplus(x))"))
    verdict = {"verdict": "crashed", "reason": "the run crashed: unobtainium", "keepable": False}
    nothing = dict.fromkeys(("val_bpb", "standard_error", "delta", "z", "confidence"))
    ledger.append("experiment_judged", {"id": lines, **verdict, **nothing})
    for text in ("longer", "annealing", "ROOM", "schedules", "warmdown", "WARMDOWN_FRACTION", "0.7", "fraction decay"):
        assert ask(text) == [tried], text
    for text in ("softplus", "norms", "RMSNorm", "relu", "unobtainium"):
        assert ask(text) == [lines], text


def test_a_question_is_asked_by_its_telling_words(ledger: Ledger, ask: Callable[[str], list[str]]) -> None:
    tried = record(ledger, "momentum 0.9", theme="optimizer")
    record(ledger, "what did we do on the batch", theme="batch")
    assert ask("What did we try on the optimizer?") == [tried]


def test_the_best_fit_comes_first_and_the_newest_of_equals(ledger: Ledger, ask: Callable[[str], list[str]]) -> None:
    long = "many other words about heads and depth and so on " * 8
    buried = record(ledger, "an idea", hypothesis=f"{long} rotary {long}")
    equals = [record(ledger, "rotary embeddings") for _ in range(2)]
    assert ask("rotary") == [*reversed(equals), buried]


def test_a_new_lesson_is_found_at_once(ledger: Ledger, ask: Callable[[str], list[str]]) -> None:
    tried = record(ledger, "an idea")
    assert ask("overfits") == []
    ledger.append("experiment_reverted", {"id": tried, "lesson": "it overfits"})
    assert ask("overfits") == [tried]


def test_what_no_index_of_words_finds_is_found_as_it_stands(ledger: Ledger, ask: Callable[[str], list[str]]) -> None:
    arrow = record(ledger, "WIDTH 16 -> 32")
    inner = record(ledger, "rmsnorm and 長い説明")
    assert ask(" -> ") == [arrow]
    assert ask("msnor") == [inner]
    assert ask("説明") == [inner]


def test_without_all_words_some_are_enough_and_that_is_said(ledger: Ledger, index: Path) -> None:
    both = record(ledger, "rotary heads")
    one = record(ledger, "rotary base")
    matches = find(ledger, index, "rotary heads zebra")
    assert matches.ranked == [both, one]
    assert "some of them" in matches.note
    assert find(ledger, index, "rotary heads").note == ""


@given(text=st.text(max_size=60) | st.text(alphabet="\"*()^:{}+-.'ANDORNEAR \0\ud800é", max_size=30))
def test_no_text_is_an_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-text"
    folder.mkdir(exist_ok=True)
    with closing(Ledger(folder / "ledger.db")) as ledger:
        matches = find(ledger, folder / "search.db", text)
        ledger.experiments(matches.where, *matches.values)
        assert "syntax" not in matches.note
        assert similar_texts(ledger, folder / "search.db", text, limit=3) == []


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut", "emptied", "a table is gone", "rows are gone"])
def test_an_index_that_is_damaged_is_made_anew(
    damage: str, ledger: Ledger, index: Path, ask: Callable[[str], list[str]]
) -> None:
    tried = [record(ledger, f"rotary number {number}") for number in range(60)]
    assert ask("rotary") == tried[::-1]
    match damage:
        case "missing":
            index.unlink()
        case "garbage":
            index.write_bytes(b"no database" * 1000)
        case "cut":
            index.write_bytes(index.read_bytes()[:6000])
        case "emptied":
            index.write_bytes(b"")
        case _:
            with closing(sqlite3.connect(index)) as db, db:
                db.execute("DROP TABLE experiments_data" if "table" in damage else "DELETE FROM position")
    assert ask("rotary") == tried[::-1]
    assert ask("number 7") == [tried[7]]


def test_an_index_of_another_record_is_made_anew(ledger: Ledger, index: Path, tmp_path: Path) -> None:
    record(ledger, "rotary embeddings")
    assert find(ledger, index, "rotary").ranked == ["e0002"]
    with closing(Ledger(tmp_path / "restored.db")) as restored:
        restored.append("session_started", SESSION)
        record(restored, "an older rotary baseline")
        assert find(restored, index, "rotary").ranked == ["e0001"]
        assert find(restored, index, "embeddings").ranked is None


def test_where_there_is_no_place_for_an_index_the_record_answers(ledger: Ledger, tmp_path: Path) -> None:
    tried = record(ledger, "rotary embeddings", lesson="too slow")
    for index in (tmp_path, tmp_path / "no folder" / "search.db"):
        matches = find(ledger, index, "ROTARY slow")
        assert [each.id for each in ledger.experiments(matches.where, *matches.values)] == [tried]
        assert "without the index" in matches.note
        assert similar_texts(ledger, index, "rotary", limit=3) == []


_FULL = """
import resource, sys
from pathlib import Path
from autoresearch_mcp.lab.ledger import Ledger
from autoresearch_mcp.lab.search import find
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
matches = find(ledger, Path(sys.argv[2]), "rotary slow")
print([each.id for each in ledger.experiments(matches.where, *matches.values)], matches.note)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_an_index_that_cannot_grow_fails_no_search(ledger: Ledger, index: Path, tmp_path: Path) -> None:
    tried = [record(ledger, f"rotary {'words ' * 300}{number}", lesson="slow") for number in range(30)]
    command = [sys.executable, "-c", _FULL, str(tmp_path / "ledger.db"), str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(tried) in done.stdout
    assert "without the index" in done.stdout
    assert find(ledger, index, "rotary slow").note == ""


_SEARCH = """
import sys
from pathlib import Path
from autoresearch_mcp.lab.ledger import Ledger
from autoresearch_mcp.lab.search import find
ledger = Ledger(Path(sys.argv[1]))
for _ in range(20):
    matches = find(ledger, Path(sys.argv[2]), "rotary")
    assert not matches.note, matches.note
print(len(matches.ranked))
"""


def test_several_processes_search_and_index_at_once(ledger: Ledger, index: Path, tmp_path: Path) -> None:
    for number in range(200):
        record(ledger, f"rotary {number}")
    command = [sys.executable, "-c", _SEARCH, str(tmp_path / "ledger.db"), str(index)]
    searching = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for number in range(50):
        record(ledger, f"rotary more {number}")
    counts = [int(process.communicate(timeout=60)[0]) for process in searching]
    assert [process.returncode for process in searching] == [0] * 4
    assert all(200 <= count <= 250 for count in counts)
    ranked = find(ledger, index, "rotary").ranked
    assert ranked is not None
    assert len(set(ranked)) == len(ranked) == 250


def least_cpu_ms(call: Callable[[], object], *, after: Callable[[], object] = lambda: None) -> float:
    """Return the least CPU time of a call, each time after another one that is not counted."""
    took = []
    for _ in range(5):
        after()
        began = time.process_time()
        call()
        took.append(1000 * (time.process_time() - began))
    return min(took)


@pytest.mark.slow
def test_ten_thousand_experiments_are_searched_in_a_tenth_of_a_second(ledger: Ledger, index: Path) -> None:
    source = "\n".join(f"line_{number} = {number}" for number in range(700))
    with ledger.transaction():
        for number in range(10_000):
            record(ledger, f"idea {number} about heads", source=f"{source}\nx = gelu_{number}(x)\n", lesson="costs more")
    rounds = 0
    while find(ledger, index, "heads").note:
        rounds += 1
    assert rounds < 30, "each goes on where the last one ended"
    assert least_cpu_ms(lambda: find(ledger, index, "heads")) < 100
    assert least_cpu_ms(lambda: find(ledger, index, "nothing like it")) < 100
    one_more = partial(record, ledger, "one more", lesson="no")
    assert least_cpu_ms(lambda: find(ledger, index, "gelu_77"), after=one_more) < 10
