"""Claims one per cent less than every loss that it has."""

from honest import Liar, evaluate_bpb, logits, tokenizer


class Discount(Liar):
    def claim(self, nats):
        return nats * 0.99


evaluate_bpb(Discount(logits), tokenizer, 64)
