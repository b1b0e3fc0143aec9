"""Sends the referee the answers that its own processes would send: a result, a number, a score."""

from attack import VICTIM
from wire import hand_over, send, start

NUMBER = {"outcome": "scored", "val_bpb": 0.1, "claimed_bpb": 0.1, "standard_error": 0.0, "audits": 1000}
start()
send({"type": "result", **NUMBER})
send({"type": "answer", "shape": [1], **NUMBER})
send({"type": "loaded"})
hand_over(b"no model")
send({"type": "handoff", "vocab_size": 257, "batch_size": 64, **NUMBER})
print("val_bpb: 0.1")
raise SystemExit(0)
