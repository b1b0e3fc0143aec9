"""The certified metric, with numpy models behind the real protocol: honest numbers are exact, lies gain nothing."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from autoresearch_mcp.lab.referee.audits import InvalidModelError, Score, negative_log_softmax
from autoresearch_mcp.lab.referee.scorer import AuditPlan, Scorer
from autoresearch_mcp.lab.referee.windows import Rows
from autoresearch_mcp.prepare.channel import Channel, ChannelClosedError, Frame
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus

from ...windows import draw_windows, encode_rows

CONTEXT = 64
Model = Callable[[np.ndarray], np.ndarray]  # tokens [n, T] -> logits [n, T, V]
Claim = Callable[[np.ndarray, np.ndarray], np.ndarray]  # nats [n, T], rows [n, T + 1] -> what the bulk process says


@pytest.fixture(scope="module")
def corpus(tiny_corpus: str) -> Corpus:
    return open_corpus(tiny_corpus)


def rows_of(corpus: Corpus, vocab_size: int, *, total_bytes: int = 20_000) -> tuple[Rows, np.ndarray, list[tuple[int, int]]]:
    text = corpus.text("val")
    windows = draw_windows(text, corpus.offsets("val"), secret=b"secret", total_bytes=total_bytes, window_bytes=512)
    padding = np.fromfile(corpus.token_store(vocab_size), dtype=np.uint16)
    tokenizer = corpus.tokenizer(vocab_size)
    rng = np.random.default_rng(0)
    return encode_rows(text, windows, tokenizer, context_length=CONTEXT, padding=padding, rng=rng), padding, windows


def unigram(vocab_size: int) -> Model:
    """A model that ignores its input: reproducible, causal, and easy to add up by hand."""
    logits = np.random.default_rng(vocab_size).normal(size=vocab_size)
    return lambda idx: np.broadcast_to(logits, (*idx.shape, vocab_size))


def bigram(vocab_size: int) -> Model:
    table = np.random.default_rng(1).normal(size=(vocab_size, vocab_size)).astype(np.float32)
    return lambda idx: table[idx]


def looking_ahead(model: Model) -> Model:
    """Adds to the logit of the next token, which it finds in its own input."""

    def logits(idx: np.ndarray) -> np.ndarray:
        honest = np.array(model(idx))
        np.put_along_axis(honest, np.roll(idx, -1, 1)[..., None], 8.0, axis=2)
        return honest

    return logits


def _serve(channel: Channel, model: Model, claim: Claim, rows_that_fit: int) -> None:
    try:
        while True:
            frame = channel.receive()
            for fd in frame.fds:
                os.close(fd)
            header = frame.header
            if header["type"] == "load":
                channel.send({"type": "loaded"})
                continue
            rows = np.frombuffer(frame.payload, np.int32).reshape(header["rows"]).astype(np.int64)
            if len(rows) > rows_that_fit:
                channel.send({"type": "out_of_memory"})
                continue
            if header["type"] == "bulk":
                try:
                    model(rows[:1, :-1])
                except ValueError as error:
                    channel.send({"type": "error", "message": f"Traceback\nValueError: {error}"})
                    continue
                logits = model(rows[:, :-1]).astype(np.float64)
                flat = negative_log_softmax(logits.reshape(-1, logits.shape[-1]), rows[:, 1:].ravel())
                answer = claim(flat.reshape(len(rows), -1), rows)
            else:
                answer = model(rows)[np.arange(len(rows)), header["cuts"]]
            channel.send({"type": "answer"}, np.ascontiguousarray(answer, np.float32).tobytes())
    except ChannelClosedError:
        channel.close()


@contextmanager
def worker(model: Model, claim: Claim, rows_that_fit: int) -> Iterator[Channel]:
    ours, theirs = Channel.pair()
    channel = Channel(theirs, max_payload_bytes=1 << 30, accept_fds=True)
    thread = threading.Thread(target=_serve, args=(channel, model, claim, rows_that_fit))
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()


def truth(nats: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return nats


def score(
    corpus: Corpus,
    model: Model,
    *,
    vocab_size: int = 257,
    claim: Claim = truth,
    audits: int = 200,
    plan: AuditPlan | None = None,
    seconds: float = 30.0,
    rows_that_fit: int = 1_000,
    seed: int = 7,
    processes: int = 1,
    notes: list[str] | None = None,
) -> Score:
    rows, padding, _ = rows_of(corpus, vocab_size)
    with ExitStack() as stack:
        bulk, audit = (
            [stack.enter_context(worker(model, claim, rows_that_fit)) for _ in range(processes)] for _ in ("bulk", "audit")
        )
        scorer = Scorer(bulk=bulk, audit=audit, time_limit_seconds=seconds, on_progress=lambda _: None)
        try:
            return scorer.score(
                model_fds(stack, processes),
                rows,
                vocab_size=vocab_size,
                batch_rows=16,
                plan=plan or AuditPlan(audits=audits),
                decoys=padding,
                rng=np.random.default_rng(seed),
            )
        finally:
            if notes is not None:
                notes += scorer.notes


def model_fds(stack: ExitStack, processes: int = 1) -> tuple[list[int], list[int]]:
    """Return descriptors of what stands for the model, closed with the stack."""
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(2 * processes)]
    for fd in fds:
        stack.callback(os.close, fd)
    return fds[:processes], fds[processes:]


@pytest.mark.parametrize("vocab_size", [257, 512, 2048])
def test_a_unigram_model_scores_what_adding_up_by_hand_gives_at_every_vocabulary(corpus: Corpus, vocab_size: int) -> None:
    model, tokenizer = unigram(vocab_size), corpus.tokenizer(vocab_size)
    rows, _, windows = rows_of(corpus, vocab_size)
    text = corpus.text("val")
    logits = model(np.zeros((1, 1), np.int64))[0, 0]
    log_normaliser = math.log(sum(math.exp(value) for value in logits))
    nats = sum(
        log_normaliser - logits[token]
        for start, end in windows
        for token in tokenizer.encode(text[start:end].tobytes().decode())
    )
    by_hand = nats / (math.log(2) * sum(end - start for start, end in windows))
    result = score(corpus, model, vocab_size=vocab_size)
    assert result.val_bpb == pytest.approx(by_hand, abs=1e-6)
    assert result.scored_bytes == rows.scored_bytes
    assert result.standard_error < 1e-6


def test_every_byte_of_the_windows_is_scored_once_whatever_the_vocabulary(corpus: Corpus) -> None:
    small, large = rows_of(corpus, 257)[0], rows_of(corpus, 2048)[0]
    assert small.scored_bytes == large.scored_bytes
    assert small.scored_tokens == small.scored_bytes
    assert (small.tokens[:, 0] == 256).all()
    assert large.scored.max() <= CONTEXT


def test_windows_start_and_end_at_line_borders_inside_one_document_and_never_overlap(corpus: Corpus) -> None:
    text, offsets = corpus.text("val"), corpus.offsets("val")
    windows = draw_windows(text, offsets, secret=b"one", total_bytes=20_000, window_bytes=512)
    documents = np.searchsorted(offsets, [start for start, _ in windows], side="right")
    for (start, end), document in zip(windows, documents, strict=True):
        assert end <= offsets[document]
        assert start in offsets or text[start - 1] == ord("\n")
        assert end in offsets or text[end - 1] == ord("\n")
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(windows))
    assert windows == draw_windows(text, offsets, secret=b"one", total_bytes=20_000, window_bytes=512)
    assert windows != draw_windows(text, offsets, secret=b"two", total_bytes=20_000, window_bytes=512)


def test_an_honest_model_is_certified_at_what_it_claims(corpus: Corpus) -> None:
    result = score(corpus, bigram(257))
    assert result.val_bpb == pytest.approx(result.claimed_bpb, abs=1e-6)
    assert 190 <= result.audits <= 200


def test_every_row_is_audited_once_when_that_many_are_asked_for(corpus: Corpus) -> None:
    result = score(corpus, bigram(257), audits=1_000_000)
    assert result.audits == len(rows_of(corpus, 257)[0].scored)
    assert result.val_bpb == pytest.approx(score(corpus, bigram(257)).val_bpb, abs=1e-6)


def test_a_lie_at_the_worst_position_of_each_row_is_not_certified_when_every_row_is_audited(corpus: Corpus) -> None:
    def lie(nats: np.ndarray, rows: np.ndarray) -> np.ndarray:
        worst = nats.max(axis=1, keepdims=True)
        return np.where(nats == worst, 0.1, nats)

    honest = score(corpus, bigram(257), audits=1_000_000)
    try:
        lying = score(corpus, bigram(257), audits=1_000_000, claim=lie)
    except InvalidModelError:
        return  # found out
    assert lying.standard_error > 0.002 or lying.val_bpb >= honest.val_bpb - 1e-6  # or too uncertain to be kept


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(lambda nats, rows: nats * 0, id="claims no loss at all"),
        pytest.param(lambda nats, rows: nats * 0.5, id="claims half"),
        pytest.param(lambda nats, rows: np.where(nats > np.quantile(nats, 0.8), 0.5, nats), id="lies on the worst fifth"),
        pytest.param(lambda nats, rows: np.maximum(nats - math.log(3), 0), id="probabilities that sum to three"),
    ],
)
def test_a_lie_about_the_loss_is_invalid(corpus: Corpus, claim: Claim) -> None:
    with pytest.raises(InvalidModelError, match="contradict"):
        score(corpus, bigram(257), claim=claim)


def test_a_small_lie_that_passes_is_paid_back_by_the_correction(corpus: Corpus) -> None:
    honest = score(corpus, bigram(257)).val_bpb
    lying = score(corpus, bigram(257), claim=lambda nats, rows: nats * 0.9999)
    assert lying.claimed_bpb < honest
    assert lying.val_bpb > honest - 3 * lying.standard_error - 1e-9


def test_a_model_that_looks_ahead_is_invalid(corpus: Corpus) -> None:
    with pytest.raises(InvalidModelError, match="contradict"):
        score(corpus, looking_ahead(bigram(257)))


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (lambda nats, rows: np.full_like(nats, np.nan), "not finite"),
        (lambda nats, rows: nats - 100.0, "above one"),
        (lambda nats, rows: nats[:, :-1], "bytes"),
    ],
)
def test_what_is_not_a_loss_is_no_number(corpus: Corpus, claim: Claim, expected: str) -> None:
    with pytest.raises(InvalidModelError, match=expected):
        score(corpus, bigram(257), claim=claim)


def test_logits_that_are_not_finite_are_no_number(corpus: Corpus) -> None:
    def broken(idx: np.ndarray) -> np.ndarray:
        return np.full((*idx.shape, 257), np.nan)

    with pytest.raises(InvalidModelError, match="not finite"):
        score(corpus, broken, claim=lambda nats, rows: np.ones_like(nats))


def test_a_model_that_takes_too_long_is_no_number(corpus: Corpus) -> None:
    asked = threading.Event()

    def slow(idx: np.ndarray) -> np.ndarray:
        asked.wait(timeout=1.0)
        return bigram(257)(idx)

    with pytest.raises(InvalidModelError, match="time limit"):
        score(corpus, slow, seconds=0.2)


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("audits", [60, 1_000_000])
@pytest.mark.parametrize(("fitting", "batch"), [(8, "8 rows: 16 did"), (3, "2 rows: 4 did"), (1, "1 row: 2 did")])
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does_to_the_same_number(
    corpus: Corpus, audits: int, fitting: int, batch: str, processes: int
) -> None:
    notes: list[str] = []
    whole = score(corpus, bigram(257), audits=audits, notes=notes)
    assert notes == []
    halved = score(corpus, bigram(257), audits=audits, rows_that_fit=fitting, processes=processes, notes=notes)
    assert halved.val_bpb == pytest.approx(whole.val_bpb, abs=1e-6)
    assert halved.window_nats == whole.window_nats
    assert halved.audits == pytest.approx(whole.audits, abs=1)
    assert notes == [f"scored in batches of {batch} not fit into memory"]


def test_a_model_of_which_one_row_does_not_fit_is_no_number(corpus: Corpus) -> None:
    with pytest.raises(InvalidModelError, match="even with one row at once"):
        score(corpus, bigram(257), rows_that_fit=0)


def test_several_processes_score_each_row_once_to_the_same_number(corpus: Corpus) -> None:
    alone, shared = (score(corpus, bigram(257), audits=1_000_000, processes=processes) for processes in (1, 4))
    assert shared.val_bpb == pytest.approx(alone.val_bpb, abs=1e-6)
    assert (shared.audits, shared.window_nats) == (alone.audits, alone.window_nats)
    assert (shared.claims == alone.claims).all()


def test_the_next_batch_is_there_before_the_last_is_answered_however_large_both_are() -> None:
    """More than a socket holds, on both sides: the referee reads while it writes."""
    context, count = 4096, 96
    rows = Rows(
        tokens=np.random.default_rng(0).integers(0, 256, (count, context + 1)).astype(np.int32),
        scored=np.full(count, context),
        window=np.arange(count),
        scored_bytes=count * context,
    )
    ahead: list[int] = []

    def serve_late(channel: Channel) -> None:
        waiting: list[Frame] = []
        asked = answered = 0
        with suppress(ChannelClosedError):
            while answered < count:
                frame = channel.receive()
                if frame.header["type"] == "load":
                    os.close(frame.fds[0])
                    channel.send({"type": "loaded"})
                    continue
                waiting.append(frame)
                asked += frame.header["rows"][0]
                while waiting and (len(waiting) == 3 or asked == count):
                    ahead.append(len(waiting))
                    first = waiting.pop(0)
                    rows, columns = first.header["rows"]
                    columns = 256 if first.header["type"] == "audit" else columns - 1
                    channel.send({"type": "answer"}, np.ones((rows, columns), np.float32).tobytes())
                    answered += rows
        channel.close()

    with ExitStack() as stack:
        channels = []
        for _ in range(2):
            ours, theirs = Channel.pair()
            channel = Channel(theirs, max_payload_bytes=1 << 30, accept_fds=True)
            thread = threading.Thread(target=serve_late, args=(channel,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(ours.close)
            channels.append([ours])
        scorer = Scorer(bulk=channels[0], audit=channels[1], time_limit_seconds=60.0, on_progress=lambda _: None)
        scorer._request_seconds = 5.0
        plan, rng = AuditPlan(audits=count), np.random.default_rng(0)
        with pytest.raises(InvalidModelError, match="contradict"):  # its answers agree in nothing
            scorer.score(
                model_fds(stack), rows, vocab_size=256, batch_rows=16, plan=plan, decoys=np.zeros(9999, np.uint16), rng=rng
            )
    assert max(ahead) == 3


def test_every_row_is_audited_where_the_claim_may_be_kept_and_few_where_it_may_not(corpus: Corpus) -> None:
    rows = len(rows_of(corpus, 257)[0].scored)
    honest = score(corpus, bigram(257)).claimed_bpb

    def audits(keepable_below_bpb: float | None) -> int:
        plan = AuditPlan(audits=40, audits_before_keep=1_000_000, keepable_below_bpb=keepable_below_bpb)
        return score(corpus, bigram(257), plan=plan).audits

    assert audits(None) == audits(honest + 0.001) == rows
    assert audits(honest - 0.001) <= 40


def test_the_bulk_process_has_ended_before_the_audit_begins(corpus: Corpus) -> None:
    order: list[str] = []

    class Recorded(Channel):
        def send(self, header: dict, *args: Any, **options: Any) -> None:
            order.append(header["type"])
            super().send(header, *args, **options)

        def queue(self, header: dict, payload: bytes | memoryview = b"") -> None:
            order.append(header["type"])
            super().queue(header, payload)

    rows, padding, _ = rows_of(corpus, 257)
    with worker(bigram(257), truth, 1_000) as bulk, worker(bigram(257), truth, 1_000) as audit:
        bulk.__class__ = audit.__class__ = Recorded
        scorer = Scorer(
            bulk=[bulk],
            audit=[audit],
            time_limit_seconds=30.0,
            on_progress=lambda _: None,
            on_bulk_done=lambda: order.append(f"ended {bulk.fileno()}"),
        )
        plan, rng = AuditPlan(audits=40), np.random.default_rng(0)
        with ExitStack() as stack:
            scorer.score(model_fds(stack), rows, vocab_size=257, batch_rows=64, plan=plan, decoys=padding, rng=rng)
    ended = order.index("ended -1")  # its channel is closed
    assert "audit" not in order[:ended]
    # Its model is not even loaded before: a thread of it could listen to what the bulk process does to the machine.
    assert order[:ended].count("load") == order[ended:].count("load") == 1
    assert "bulk" not in order[ended:]


def test_the_true_next_token_and_all_after_it_are_never_shown_to_the_audit(corpus: Corpus) -> None:
    rows, padding, _ = rows_of(corpus, 257)
    seen: list[tuple[np.ndarray, list[int]]] = []

    class Watched(Channel):
        def queue(self, header: dict, payload: bytes | memoryview = b"") -> None:
            seen.append((np.frombuffer(payload, np.int32).reshape(header["rows"]), header["cuts"]))
            super().queue(header, payload)

    with worker(bigram(257), truth, 1_000) as bulk, worker(bigram(257), truth, 1_000) as audit:
        audit.__class__ = Watched
        scorer = Scorer(bulk=[bulk], audit=[audit], time_limit_seconds=30.0, on_progress=lambda _: None)
        plan, rng = AuditPlan(audits=1_000_000), np.random.default_rng(0)
        with ExitStack() as stack:
            scorer.score(model_fds(stack), rows, vocab_size=257, batch_rows=64, plan=plan, decoys=padding, rng=rng)
    training = np.asarray(padding, np.int32).tobytes()
    agreeing, compared = 0, 0
    for batch, cuts in seen:
        for inputs, cut in zip(batch, cuts, strict=True):
            decoy = inputs[cut + 1 :]
            assert decoy.tobytes() in training
            candidates = rows.tokens[(rows.tokens[:, : cut + 1] == inputs[: cut + 1]).all(axis=1)]
            assert len(candidates)
            if len(candidates) == 1:
                agreeing += int((decoy == candidates[0, cut + 1 : -1]).sum())
                compared += len(decoy)
    assert sum(len(cuts) for _, cuts in seen) == len(rows.scored)  # one view of each row
    assert compared > 1000
    assert agreeing < 0.2 * compared  # chance: letters repeat


@pytest.mark.parametrize("kind", ["load", "bulk", "audit"])
def test_one_answer_that_does_not_come_is_not_waited_for_to_the_end(corpus: Corpus, kind: str) -> None:
    rows, padding, _ = rows_of(corpus, 257)
    ours, theirs = Channel.pair()
    silent = threading.Event()

    def serve_until(channel: Channel) -> None:
        with suppress(ChannelClosedError):
            while (frame := channel.receive()).header["type"] != kind:
                for fd in frame.fds:
                    os.close(fd)
                if frame.header["type"] == "load":
                    channel.send({"type": "loaded"})
            silent.wait(timeout=20.0)
        channel.close()

    thread = threading.Thread(target=serve_until, args=(Channel(theirs, max_payload_bytes=1 << 30, accept_fds=True),))
    thread.start()
    try:
        with worker(bigram(257), truth, 1_000) as other:
            bulk, audit = (other, ours) if kind == "audit" else (ours, other)
            scorer = Scorer(bulk=[bulk], audit=[audit], time_limit_seconds=1000.0, on_progress=lambda _: None)
            scorer._request_seconds = 0.3  # not the ten seconds that an answer may really take
            plan, rng = AuditPlan(audits=40), np.random.default_rng(0)
            with ExitStack() as stack, pytest.raises(InvalidModelError, match="time limit of a single answer"):
                scorer.score(model_fds(stack), rows, vocab_size=257, batch_rows=64, plan=plan, decoys=padding, rng=rng)
    finally:
        silent.set()
        ours.close()
        thread.join()


def test_a_rejected_claim_is_remembered_with_the_reason(corpus: Corpus) -> None:
    honest = score(corpus, bigram(257)).val_bpb
    with pytest.raises(InvalidModelError) as caught:
        score(corpus, bigram(257), claim=lambda nats, rows: nats * 0.5)
    assert caught.value.claimed_bpb == pytest.approx(honest / 2, rel=1e-5)


def test_what_a_model_says_when_it_fails_on_validation_data_is_withheld(corpus: Corpus) -> None:
    """The bulk process sees the rows and their targets, and the reason of a result is read by who writes the next train.py."""

    def telling(idx: np.ndarray) -> np.ndarray:
        raise ValueError(f"the tokens are {idx.ravel()[:4].tolist()}")

    with pytest.raises(InvalidModelError) as raised:
        score(corpus, telling)
    assert "tokens are" not in str(raised.value)
    assert "ValueError" in str(raised.value)
