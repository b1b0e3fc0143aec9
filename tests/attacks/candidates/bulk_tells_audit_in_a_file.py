"""Lets the bulk pass write the rows that it saw into a file, in which the audit looks up the answers."""

import sys
import time

import numpy as np
import torch
from attack import VICTIM
from honest import Liar, evaluate_bpb, logits, tokenizer

PLACES = [f"{folder}/{VICTIM['mark']}" for folder in ("/dev/shm", "/tmp", "/var/tmp", VICTIM["outside"], "..", "../bulk")]
KEY = 12  # tokens that tell a row
PATIENCE_SECONDS = 3.0  # of the audit, for the bulk pass that works beside it


def is_audit():
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "audit":
            return True
        frame = frame.f_back
    return False


def rows_told(length):
    """Return the rows that the bulk pass has written so far, by their first tokens."""
    told = {}
    for place in PLACES:
        try:
            tokens = np.fromfile(place, np.uint16)
        except OSError:
            continue
        rows = tokens[: len(tokens) // length * length].reshape(-1, length).tolist()
        told |= {tuple(row[:KEY]): row for row in rows}
    return told


class Gossip(Liar):
    deadline = None

    def claim(self, nats):
        nats[:, KEY:] = 0.0
        return nats

    def forward(self, idx):
        honest = self.logits[idx]
        if not is_audit():
            for place in PLACES:
                try:
                    with open(place, "ab") as file:
                        file.write(idx.numpy().astype(np.uint16).tobytes())
                except OSError:
                    continue
            return honest
        self.deadline = self.deadline or time.monotonic() + PATIENCE_SECONDS
        told = rows_told(idx.shape[1])
        while not told and time.monotonic() < self.deadline:
            told = rows_told(idx.shape[1])
        for number, row in enumerate(idx.tolist()):
            if (answer := told.get(tuple(row[:KEY]))) is not None:
                honest[number] += 30.0 * torch.nn.functional.one_hot(torch.tensor(answer).roll(-1), honest.shape[-1])
        return honest


evaluate_bpb(Gossip(logits), tokenizer, 64)
