"""The rows that a run is scored on, made ready while nobody waits for them.

They depend on the lab's secret, the split, the corpus and the vocabulary, and on nothing of the model, so they can be made
before the training has ended: on the GPU profile it takes seconds. Guarantees: made in steps, in the runner's one thread;
nothing of them leaves this process here. Does not: bound a single step by more than its size, some tens of milliseconds.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import numpy as np

from ...prepare.corpus import Corpus
from ...prepare.tokenizer import Tokenizer
from ..executor import RunSpec
from .windows import Rows, Steps, draw_windows, encode_rows


class ScoredRows:
    """The rows of one vocabulary, once `finish` has returned them.

    Attributes:
        decoys: the tokens of the training split, uint16, mapped: what follows the cuts of audits.
        rng: secret; it draws padding here, and may draw the order of the rows and the cuts after that.
    """

    def __init__(self, spec: RunSpec, corpus: Corpus, vocab_size: int) -> None:
        self._spec = spec
        self._corpus = corpus
        self.vocab_size = vocab_size
        self.decoys = np.memmap(corpus.token_store(vocab_size), dtype=np.uint16, mode="r")
        self.rng = np.random.default_rng(secrets.randbits(128))
        self._tokenizer: Tokenizer | None = None
        self._rows: Rows | None = None
        self._steps = self._make()

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = self._corpus.tokenizer(self.vocab_size)
        return self._tokenizer

    def advance(self, seconds: float) -> bool:
        """Go on for about so long; True once they are made. Raises `NoWindowsError` where nothing can be scored."""
        deadline = time.monotonic() + seconds
        while self._rows is None and time.monotonic() < deadline:
            try:
                next(self._steps)
            except StopIteration as done:
                self._rows = done.value
        return self._rows is not None

    def finish(self) -> Rows:
        """Return the rows, made to the end."""
        while self._rows is None:
            self.advance(1.0)
        return self._rows

    def _make(self) -> Steps[Rows]:
        spec, text = self._spec, self._corpus.text(self._spec.split)
        windows = yield from draw_windows(
            text,
            self._corpus.offsets(spec.split),
            secret=Path(spec.validation_secret).read_bytes(),
            total_bytes=spec.validation_bytes,
            window_bytes=spec.window_bytes,
            split=spec.split,
        )
        rows = yield from encode_rows(
            text, windows, self.tokenizer, context_length=spec.context_length, padding=self.decoys, rng=self.rng
        )
        return rows
