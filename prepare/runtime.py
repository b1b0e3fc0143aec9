"""The candidate's side of an experiment: everything that `from prepare import ...` offers except the tokenizer.

This code runs inside the candidate's process, so nothing here is a guarantee: the referee keeps the clock, holds the data
back until it has started it, and scores the model elsewhere. It guarantees only that an honest train.py sees true values.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from .channel import Channel
from .handoff import describe_unserialisable, save_model, uncompiled
from .loader import Batch, token_batches, token_windows
from .prefetch import BUFFERS, prefetched, widened
from .rehearsal import Rehearsal
from .settings import CandidateSettings
from .tokenizer import Tokenizer

_settings = CandidateSettings.from_environment()
_rehearsal = Rehearsal(
    length=_settings.context_length, device=_settings.device, close_in_child=_settings.channel_fd
)  # before train.py defines anything
_channel = Channel.from_fd(_settings.channel_fd)
_scratch = Path(_settings.scratch)

MAX_SEQ_LEN: int = _settings.context_length  # tokens in a row
TIME_BUDGET: float = _settings.budget_seconds  # seconds of training, on the referee's clock
SEED: int = _settings.seed
PROFILE: str = _settings.profile
DEVICE: str = _settings.device
MEMORY_BYTES: int  # see `__getattr__`

_SYNTHETIC_VOCABULARY = 256  # ids below this exist in every prepared vocabulary
_REPORT_INTERVAL_SECONDS = 0.1
_SECONDS = struct.Struct("<d")

_tokens: dict[int, np.ndarray] = {}  # vocabulary size -> uint16 tokens of the training split, mapped read-only
_clock: mmap.mmap | None = None  # one float64 that the referee keeps writing: seconds left
_last_seconds_left = math.inf
_seconds_to_save = 0.0
_last_report = -math.inf
_train_tokens = 0  # that the loader has handed out
_forward_flops_per_token: float | None = None  # as rehearsed


def __getattr__(name: str) -> Any:
    """MEMORY_BYTES: what this run may use, the memory limit of the run on a CPU, all memory of the device on a GPU.

    Looked up when it is asked for: asking a GPU initialises CUDA.
    """
    if name != "MEMORY_BYTES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _settings.memory_bytes if DEVICE == "cpu" else int(torch.cuda.get_device_properties(DEVICE).total_memory)


def synthetic_batch(B: int, T: int) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
    """Return random ``(inputs, targets)``, int64 [B, T] on DEVICE: for compilation and warm-up before the clock starts."""
    tokens = torch.randint(_SYNTHETIC_VOCABULARY, (B, T + 1), device=DEVICE)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def rehearse(model: torch.nn.Module) -> None:
    """Serialise ``model``, load it in a fresh process and run one forward there, as the scorer will.

    Call it before the data is opened: what cannot be handed over fails here in seconds, not after the budget. Also
    measures how long saving takes, which `seconds_left` then sets aside. Ends the process with the reason on failure.
    """
    global _seconds_to_save, _forward_flops_per_token
    path = _scratch / "rehearsal.pkl"
    started = time.monotonic()
    try:
        save_model(model, path)
    except Exception as error:  # noqa: BLE001 - whatever pickling a candidate's object raises is the answer
        sys.exit(f"rehearse: the model cannot be handed over: {describe_unserialisable(uncompiled(model), error)}")
    _seconds_to_save = 2 * (time.monotonic() - started) + 0.05
    rehearsed = _rehearsal.run(path)
    path.unlink(missing_ok=True)
    if rehearsed.problem is not None:
        sys.exit(f"rehearse: the model does not work in a fresh process, where it is scored:\n{rehearsed.problem}")
    _forward_flops_per_token = rehearsed.forward_flops_per_token


def make_dataloader(
    tokenizer: Tokenizer,
    B: int,  # noqa: N803
    T: int,  # noqa: N803
    split: str = "train",
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Open the training data and return an endless iterator of ``(inputs, targets, epoch)``.

    Inputs and targets are int64 [B, T] on DEVICE; each row of inputs starts with BOS. **The first call starts the clock.**
    Raises `PermissionError` for any split but "train".
    """
    if split != "train":
        raise PermissionError(
            f"make_dataloader(split={split!r}): a candidate sees only 'train'. The referee scores the validation split "
            "itself, after evaluate_bpb(model, tokenizer, batch_size)."
        )
    if T > MAX_SEQ_LEN:
        raise ValueError(f"make_dataloader(T={T}): rows are at most MAX_SEQ_LEN = {MAX_SEQ_LEN} tokens")
    tokens = _open_tokens(tokenizer.vocab_size)
    if DEVICE == "cpu":
        return _on_cpu(token_batches(tokens, B, T, tokenizer.bos_token_id, SEED))
    buffers = [torch.empty((B, T), dtype=torch.int16, pin_memory=True) for _ in range(BUFFERS)]
    copy = partial(_copy_to_device, bos_token_id=tokenizer.bos_token_id)
    return _on_device(prefetched(token_windows(tokens, B, T, SEED), buffers, copy))


def seconds_left() -> float:
    """Return the training seconds left on the referee's clock, less the rehearsed time to save; never goes up."""
    global _last_seconds_left
    left = TIME_BUDGET if _clock is None else _SECONDS.unpack_from(_clock)[0]
    _last_seconds_left = min(_last_seconds_left, left)
    return _last_seconds_left - _seconds_to_save


def report(step: int, **metrics: float) -> None:
    """Send one point of the live curve (at most ten a second are sent; the rest are dropped). Never scored.

    Before the data is opened, too: it stands at second 0.
    """
    global _last_report
    now = time.monotonic()
    if now - _last_report < _REPORT_INTERVAL_SECONDS:
        return
    _last_report = now
    _channel.send({"type": "report", "step": int(step), "metrics": {k: float(v) for k, v in metrics.items()}})


def evaluate_bpb(model: torch.nn.Module, tokenizer: Tokenizer, batch_size: int) -> NoReturn:
    """Hand the model over to the referee and end this process. The val_bpb is certified elsewhere; see `history`."""
    allocated_mb = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None  # before saving
    save_model(model, _scratch / "model.pkl")
    _channel.send(
        {
            "type": "handoff",
            "vocab_size": tokenizer.vocab_size,
            "batch_size": int(batch_size),
            "train_tokens": _train_tokens,
            "forward_flops_per_token": _forward_flops_per_token,
            "allocated_gpu_memory_mb": allocated_mb,
        }
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _open_tokens(vocab_size: int) -> np.ndarray:
    global _clock
    if vocab_size not in _tokens:
        _rehearsal.close()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        _channel.send({"type": "open_train", "vocab_size": vocab_size})
        frame = _channel.receive()
        if frame.header["type"] != "start":
            sys.exit(f"make_dataloader: {frame.header.get('message', 'the referee refused the data')}")
        tokens_fd, clock_fd = frame.fds
        mapped = mmap.mmap(tokens_fd, 0, prot=mmap.PROT_READ)
        if _clock is None:
            _clock = mmap.mmap(clock_fd, _SECONDS.size, prot=mmap.PROT_READ)
        os.close(tokens_fd)
        os.close(clock_fd)
        _tokens[vocab_size] = np.frombuffer(mapped, dtype=np.uint16)
    return _tokens[vocab_size]


def _on_cpu(batches: Iterator[Batch]) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """A gather takes a ten-thousandth of a step there, so no thread is worth its switches."""
    global _train_tokens
    for inputs, targets, epoch in batches:
        _train_tokens += inputs.size
        yield torch.from_numpy(inputs), torch.from_numpy(targets), epoch


def _on_device(
    batches: Iterator[tuple[tuple[torch.Tensor, torch.Tensor], int]],
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    global _train_tokens
    for (inputs, targets), epoch in batches:
        _train_tokens += inputs.numel()  # handed out, not gathered ahead
        yield inputs, targets, epoch


def _copy_to_device(buffer: torch.Tensor, *, bos_token_id: int) -> tuple[tuple[torch.Tensor, torch.Tensor], Callable[[], None]]:
    """Start the copy of pinned targets, int16 [B, T], and widen them there: a quarter of the bytes of int64 on the way."""
    narrow = buffer.to(DEVICE, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # who waits for it sleeps
    copied.record()
    return widened(narrow, bos_token_id), copied.synchronize
