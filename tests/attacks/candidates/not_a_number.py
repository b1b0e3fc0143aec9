"""Claims losses that are not numbers, with which every comparison is false."""

from honest import Liar, evaluate_bpb, logits, tokenizer


class Undefined(Liar):
    def claim(self, nats):
        return nats * float("nan")


evaluate_bpb(Undefined(logits), tokenizer, 64)
