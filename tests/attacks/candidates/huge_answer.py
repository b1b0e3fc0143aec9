"""Answers the referee with a gigabyte where some kilobytes are due."""

import numpy as np
from honest import Liar, evaluate_bpb, logits, tokenizer


class Verbose(Liar):
    def claim(self, nats):
        return np.zeros(1 << 28)


evaluate_bpb(Verbose(logits), tokenizer, 64)
