"""An honest model to lie about: how often each byte follows another in the training text, counted once."""

import sys

import numpy as np
import torch

from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb, make_dataloader

tokenizer = Tokenizer.load(257)
size = tokenizer.vocab_size
counts = np.full(size * size, 0.1)
for inputs, targets, epoch in make_dataloader(tokenizer, 64, MAX_SEQ_LEN, "train"):
    if epoch > 1:
        break
    counts += np.bincount((inputs * size + targets).numpy().ravel(), minlength=size * size)


class Bigram(torch.nn.Module):
    """Logits of the next byte from the last one."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, idx):
        return self.logits[idx]


class Liar(Bigram):
    """The same model; where it is loaded to be scored, it puts its own words into the mouth of the bulk pass."""

    def claim(self, nats):
        return nats

    def __setstate__(self, state):
        super().__setstate__(state)
        worker = sys.modules["__main__"]
        if hasattr(worker, "bulk"):
            truth = worker.bulk

            def lie(*arguments):
                claimed = self.claim(truth(*arguments).numpy())
                return torch.from_numpy(np.ascontiguousarray(claimed, np.float32))

            worker.bulk = lie


logits = torch.tensor(counts.reshape(size, size)).log().float()
