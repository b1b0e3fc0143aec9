"""What runs beside a candidate's model: nats equal to a plain log-softmax, and answers in the order of the requests."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from autoresearch_mcp.prepare import scoring_worker  # noqa: E402
from autoresearch_mcp.prepare.handoff import load_model, save_model  # noqa: E402
from autoresearch_mcp.prepare.scoring_worker import Channel, Frame  # noqa: E402  (it runs by path: these are its own)

CONTEXT, VOCAB = 32, 300


def model_of(fails: Callable[[Any], None] = lambda idx: None) -> Any:
    """A bigram model that first lets ``fails`` look at its input."""

    class Bigram(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Parameter(torch.randn(VOCAB, VOCAB))

        def forward(self, idx: Any) -> Any:
            fails(idx)
            return self.table[idx]

    return Bigram()


@contextmanager
def served(model: Any, tmp_path: Any, *, ahead: int) -> Iterator[Channel]:
    """A worker in a thread that has loaded ``model``."""
    path = tmp_path / "model.pkl"
    save_model(model, path)
    ours, theirs = Channel.pair(max_payload_bytes=1 << 30)
    channel = Channel(theirs, max_payload_bytes=1 << 30, accept_fds=True)
    thread = threading.Thread(target=scoring_worker.serve, args=(channel, "cpu"), kwargs={"ahead": ahead})
    thread.start()
    try:
        assert ours.receive(timeout_seconds=30).header["type"] == "ready"
        with path.open("rb") as file:
            ours.send({"type": "load", "context": CONTEXT, "vocab_size": VOCAB}, fds=(file.fileno(),))
        assert ours.receive(timeout_seconds=30).header["type"] == "loaded"
        yield ours
    finally:
        ours.close()
        thread.join()
        channel.close()


def ask(channel: Channel, rows: np.ndarray, **header: Any) -> None:
    header = {"type": "bulk", "vocab_size": VOCAB, "threads": 1, "rows": list(rows.shape), **header}
    channel.send(header, rows.astype(np.int32).tobytes())


def nats(frame: Frame, rows: np.ndarray) -> np.ndarray:
    assert frame.header["type"] == "answer", frame.header
    return np.frombuffer(frame.payload, np.float32).reshape(len(rows), -1)


def plain(rows: np.ndarray) -> np.ndarray:
    logits = model_of().table.detach().double()[torch.from_numpy(rows[:, :-1])]
    return -logits.log_softmax(-1).gather(2, torch.from_numpy(rows[:, 1:, None]))[..., 0].numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("contiguous", [True, False])
def test_nats_taken_row_by_row_are_those_of_a_log_softmax_over_all(dtype: str, contiguous: bool) -> None:
    shape = (5, 7, 1000) if contiguous else (7, 5, 1000)
    logits = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 5).to(getattr(torch, dtype))
    logits = logits if contiguous else logits.transpose(0, 1)
    targets = torch.randint(1000, (5, 7), generator=torch.Generator().manual_seed(1))
    taken = scoring_worker.nats_of(logits, targets)
    expected = -logits.double().log_softmax(-1).gather(2, targets[..., None])[..., 0]
    assert taken.dtype == torch.float32
    assert torch.allclose(taken.double(), expected, rtol=1e-6, atol=1e-6)
    assert taken.double().sum().item() == pytest.approx(expected.sum().item(), rel=1e-6)


@pytest.mark.parametrize("ahead", [0, 1])
def test_answers_come_in_the_order_of_the_requests(tmp_path: Any, ahead: int) -> None:
    batches = [np.random.default_rng(index).integers(0, VOCAB, (1 + index % 4, CONTEXT + 1)) for index in range(12)]
    cuts = list(range(8))
    audited = np.random.default_rng(99).integers(0, VOCAB, (8, CONTEXT))
    with served(model_of(), tmp_path, ahead=ahead) as channel:
        for rows in batches:
            ask(channel, rows)
        ask(channel, audited, type="audit", cuts=cuts)
        for rows in batches:
            assert np.allclose(nats(channel.receive(timeout_seconds=30), rows), plain(rows), rtol=1e-5, atol=1e-5)
        logits = nats(channel.receive(timeout_seconds=30), audited)
    assert np.array_equal(logits, model_of().table.detach().numpy()[audited[np.arange(8), cuts]])


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_batch_that_does_not_fit_is_said_in_its_place_and_so_is_an_error(tmp_path: Any, ahead: int) -> None:
    def fails(idx: Any) -> None:
        if len(idx) == 3:
            raise MemoryError
        if len(idx) == 5:
            raise ValueError("five")

    sizes = [1, 3, 3, 2, 5, 1, 3]
    with served(model_of(fails), tmp_path, ahead=ahead) as channel:
        for size in sizes:
            ask(channel, np.ones((size, CONTEXT + 1), np.int64))
        kinds = [channel.receive(timeout_seconds=30).header["type"] for _ in sizes]
    assert kinds == [{3: "out_of_memory", 5: "error"}.get(size, "answer") for size in sizes]


def test_how_many_rows_a_device_has_room_for_is_at_least_one() -> None:
    assert scoring_worker.rows_that_fit(100 << 30, row_bytes=1 << 30) == 80
    assert scoring_worker.rows_that_fit(1 << 20, row_bytes=1 << 30) == 1
    assert scoring_worker.rows_that_fit(1 << 20, row_bytes=0) >= 1


def test_what_is_no_model_is_refused() -> None:
    import cloudpickle

    with pytest.raises(TypeError, match="handed over a dict"):
        load_model(io.BytesIO(cloudpickle.dumps({})), "cpu")
