"""A run without a number has one cause; what the referee saw counts more than what the candidate printed."""

from __future__ import annotations

import pytest
from autoresearch_mcp.lab.causes import DETAIL_CHARACTERS, HINTS, Cause, classify
from autoresearch_mcp.lab.states import Outcome

EXIT = "train.py exited with code 1; its log says why"


def traceback(error: str) -> list[str]:
    return [
        "step 12",
        "Traceback (most recent call last):",
        '  File "train.py", line 40, in <module>',
        "    loss = model(x)",
        error,
    ]


@pytest.mark.parametrize(
    ("outcome", "reason", "cause"),
    [
        (Outcome.CRASHED, "used more than 512 MB of memory ([limits] memory_mb)", Cause.OUT_OF_MEMORY),
        (Outcome.CRASHED, "the scoring process 'bulk' did not start: gone (see [limits] memory_mb)", Cause.OUT_OF_MEMORY),
        (Outcome.INVALID, "the model ran out of memory while it was scored, even with 1 rows at once", Cause.OUT_OF_MEMORY),
        (
            Outcome.INVALID,
            "the model failed while it was scored: torch.OutOfMemoryError: CUDA out of memory",
            Cause.OUT_OF_MEMORY,
        ),
        (Outcome.INVALID, "the model failed while it was scored: KeyError: 'x'", Cause.SCORING_ERROR),
        (Outcome.INVALID, "the model ended the process that scores it (out of memory, or a crash)", Cause.SCORING_ERROR),
        (Outcome.INVALID, "the model's logits are not finite (NaN or infinity)", Cause.NOT_FINITE),
        (Outcome.INVALID, "the model claimed 0.1 bits per byte, but 40 audits contradict it by +2.1", Cause.REJECTED),
        (Outcome.INVALID, "scoring took longer than its time limit ([budget] scoring_seconds)", Cause.SCORING_TIME),
        (Outcome.TIMED_OUT, "start-up took more than 300 s ([budget] startup_seconds)", Cause.START_UP),
        (Outcome.TIMED_OUT, "ran past its budget of 300 s and the grace of 6 s", Cause.OUT_OF_TIME),
        (Outcome.CRASHED, "started more than 256 processes ([limits] processes)", Cause.LIMIT),
        (Outcome.CRASHED, "train.py ended without evaluate_bpb(model, tokenizer, batch_size)", Cause.NO_HAND_OFF),
        (Outcome.CRASHED, "train.py was ended by SIGSEGV; its log says why", Cause.SIGNAL),
        (Outcome.CRASHED, EXIT, Cause.EXIT),
        (Outcome.LOST, "the referee's process died: killed", Cause.LOST),
        (Outcome.CANCELLED, "cancelled by cancel_experiment", Cause.CANCELLED),
        (Outcome.PRUNED, "its loss 3.1 lies above its parent's 2.0 at 40% of the budget", Cause.PRUNED),
        (Outcome.PRUNED, "its loss is not finite", Cause.NOT_FINITE),
    ],
)
def test_the_referees_reason_names_the_cause(outcome: Outcome, reason: str, cause: Cause) -> None:
    failure = classify(outcome, reason, [])
    assert failure.cause is cause
    assert failure.detail in reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3 and 5x6)", "error: RuntimeError"),
        ("torch._dynamo.exc.Unsupported: data-dependent branch", "error: Unsupported"),
        ("AssertionError", "error: AssertionError"),
        ("MemoryError", "out of memory"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", "out of memory"),
        ("FloatingPointError: the loss is nan", "not finite"),
    ],
)
def test_a_crash_is_told_by_the_last_exception_of_its_log(error: str, kind: str) -> None:
    failure = classify(Outcome.CRASHED, EXIT, traceback(error))
    assert failure.kind == kind
    assert failure.detail == error
    assert failure.is_quoted


def test_the_first_line_of_a_long_message_is_shown_and_of_chained_exceptions_the_last() -> None:
    log = [
        *traceback("KeyError: 'first'"),
        *traceback("RuntimeError: Error(s) in loading state_dict:"),
        "\tsize mismatch for x",
    ]
    assert classify(Outcome.CRASHED, EXIT, log).detail == "RuntimeError: Error(s) in loading state_dict:"


def test_an_exception_is_found_where_its_traceback_was_cut_off() -> None:
    assert classify(Outcome.CRASHED, EXIT, ["    y = f(x)", "ValueError: bad"]).kind == "error: ValueError"


def test_a_file_that_ends_itself_is_told_by_its_last_words() -> None:
    nan = classify(Outcome.CRASHED, EXIT, ["the training loss became nan at step 7: lower a learning rate"])
    assert nan.cause is Cause.NOT_FINITE
    rehearsal = ["rehearse: the model does not work in a fresh process, where it is scored:", *traceback("NameError: name 'x'")]
    assert classify(Outcome.CRASHED, EXIT, rehearsal).cause is Cause.NO_HAND_OFF
    other = classify(Outcome.CRASHED, EXIT, ["TOTAL_BATCH_TOKENS 3 is no multiple of 2 rows"])
    assert (other.cause, other.is_quoted) == (Cause.EXIT, True)


def test_a_log_cannot_change_what_the_referee_saw() -> None:
    claims = traceback("MemoryError: cancelled by cancel_experiment, the referee's process died")
    assert classify(Outcome.TIMED_OUT, "ran past its budget of 300 s", claims).cause is Cause.OUT_OF_TIME
    assert classify(Outcome.INVALID, "40 audits contradict it", claims).cause is Cause.REJECTED
    said = "the model failed while it was scored: ValueError: start-up took more than 1 s"
    assert classify(Outcome.INVALID, said, []).cause is Cause.SCORING_ERROR


def test_a_detail_is_one_short_line() -> None:
    failure = classify(Outcome.CRASHED, EXIT, traceback("ValueError: " + "x" * 5000))
    assert len(failure.detail) == DETAIL_CHARACTERS
    assert "\n" not in classify(Outcome.INVALID, "two\nlines", []).detail


def test_a_run_with_a_number_has_no_cause() -> None:
    with pytest.raises(ValueError, match="has a number"):
        classify(Outcome.SCORED, "scored", [])


def test_each_cause_has_a_hint_of_a_line() -> None:
    assert HINTS.keys() == set(Cause)
    assert all(20 < len(hint) < 110 and "\n" not in hint for hint in HINTS.values())
    assert classify(Outcome.LOST, "gone", []).hint == HINTS[Cause.LOST]
