"""Hands over a link to the validation text as its model, for the referee to follow."""

import os

from attack import VICTIM
from wire import send, settings, start

start()
os.symlink(VICTIM["validation_text"], settings["scratch"] + "/model.pkl")
send({"type": "handoff", "vocab_size": 257, "batch_size": 64})
