"""The locked harness that a candidate imports; the names follow karpathy/autoresearch where upstream has them.

    MAX_SEQ_LEN, TIME_BUDGET, SEED, PROFILE, DEVICE   set by the referee
    MEMORY_BYTES                                      what the run may use: its limit on a CPU, the device's memory on a GPU
    Tokenizer.load(vocab_size)                        a trusted byte-level BPE of one of the prepared sizes
    synthetic_batch(B, T)                             random tokens, for warm-up and compilation before the clock starts
    rehearse(model)                                   serialise, reload and run the model in a fresh process, before the data
    make_dataloader(tokenizer, B, T, "train")         opens the data: the first call starts the clock
    seconds_left()                                    the server's clock, less the rehearsed time to save
    report(step, **metrics)                           one point of the live curve
    evaluate_bpb(model, tokenizer, batch_size)        the hand-off: saves the model and ends the process

The names are resolved on first use, because the torch-free server imports other modules of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import (
        DEVICE,
        MAX_SEQ_LEN,
        MEMORY_BYTES,
        PROFILE,
        SEED,
        TIME_BUDGET,
        evaluate_bpb,
        make_dataloader,
        rehearse,
        report,
        seconds_left,
        synthetic_batch,
    )
    from .tokenizer import Tokenizer

__all__ = [
    "DEVICE",
    "MAX_SEQ_LEN",
    "MEMORY_BYTES",
    "PROFILE",
    "SEED",
    "TIME_BUDGET",
    "Tokenizer",
    "evaluate_bpb",
    "make_dataloader",
    "rehearse",
    "report",
    "seconds_left",
    "synthetic_batch",
]


def __getattr__(name: str) -> Any:
    if name == "Tokenizer":
        from .tokenizer import Tokenizer

        return Tokenizer
    if name in __all__:
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'prepare' has no attribute {name!r}; it offers: {', '.join(__all__)}")
