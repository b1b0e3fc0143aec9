"""Claims probabilities that sum to three."""

import math

import numpy as np
from honest import Liar, evaluate_bpb, logits, tokenizer


class Generous(Liar):
    def claim(self, nats):
        return np.maximum(nats - math.log(3), 0)


evaluate_bpb(Generous(logits), tokenizer, 64)
