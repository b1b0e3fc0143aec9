"""Finds the next token in its own input and bets on it."""

import torch
from honest import Bigram, evaluate_bpb, logits, tokenizer


class LookAhead(Bigram):
    def forward(self, idx):
        bet = torch.nn.functional.one_hot(idx.roll(-1, 1), self.logits.shape[1])
        return self.logits[idx] + 9.0 * bet


evaluate_bpb(LookAhead(logits), tokenizer, 64)
