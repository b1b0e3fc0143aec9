"""Lies only about the worst 0.1 % of the tokens, where few audits fall."""

import numpy as np
from honest import Liar, evaluate_bpb, logits, tokenizer


class Cosmetics(Liar):
    def claim(self, nats):
        return np.where(nats > np.quantile(nats, 0.999), 0.1, nats)


evaluate_bpb(Cosmetics(logits), tokenizer, 64)
