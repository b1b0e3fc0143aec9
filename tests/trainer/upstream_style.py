"""A training script in the style of karpathy/autoresearch, written for these tests: that file's shape, and none of its text.

It does by itself what the referee does here: it owns its clock, its seed, its device and its evaluation. With
docs/from-upstream.patch it runs in a lab; without, it is refused. The sizes are small, so that a test trains it in seconds.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kernels import get_kernel
from torch import nn

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

flash = get_kernel("kernels-community/flash-attn3").flash_attn_interface

# Sizes and rates, edited in place
DEPTH = 2
ASPECT_RATIO = 16
HEAD_DIM = 16
WINDOW_PATTERN = "SL"
TOTAL_BATCH_SIZE = 2**12
DEVICE_BATCH_SIZE = 8
EMBEDDING_LR = 0.02
MATRIX_LR = 0.01
WARMDOWN_RATIO = 0.5
WARMUP_STEPS = 10


@dataclass
class Config:
    vocab_size: int
    width: int = DEPTH * ASPECT_RATIO
    heads: int = DEPTH * ASPECT_RATIO // HEAD_DIM


def rms(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)


class Attention(nn.Module):
    def __init__(self, config, window):
        super().__init__()
        self.heads, self.window = config.heads, window
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, HEAD_DIM).unbind(2)
        q, k = rms(rotate(q, cos, sin)), rms(rotate(k, cos, sin))
        y = flash.flash_attn_func(q, k, v, causal=True, window_size=(self.window, 0))
        return self.out(y.reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, config, window):
        super().__init__()
        self.attention = Attention(config, window)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(rms(x), cos, sin)
        return x + self.down(F.relu(self.up(rms(x))).square())


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        windows = [MAX_SEQ_LEN if letter == "L" else MAX_SEQ_LEN // 2 for letter in WINDOW_PATTERN]
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, windows[i % len(windows)]) for i in range(DEPTH))
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.register_buffer("cos", torch.empty(MAX_SEQ_LEN, 1, HEAD_DIM // 2), persistent=False)
        self.register_buffer("sin", torch.empty(MAX_SEQ_LEN, 1, HEAD_DIM // 2), persistent=False)

    @torch.no_grad()
    def init_weights(self):
        for weight in self.parameters():
            nn.init.normal_(weight, std=weight.size(-1) ** -0.5)
        nn.init.normal_(self.head.weight, std=0.001)
        frequencies = 10000 ** (-torch.arange(0, HEAD_DIM, 2, device=self.cos.device) / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN, device=self.cos.device), frequencies).unsqueeze(1)
        self.cos, self.sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        self.embed.to(torch.bfloat16)

    def forward(self, idx, targets=None, reduction="mean"):
        T = idx.size(1)
        x = rms(self.embed(idx))
        for block in self.blocks:
            x = block(x, self.cos[:T], self.sin[:T])
        logits = self.head(rms(x)).float()
        logits = 15 * torch.tanh(logits / 15)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)


# Setup
began = time.time()
torch.manual_seed(42)
torch.cuda.manual_seed(42)
device = torch.device("cuda")
autocast = torch.amp.autocast(device_type="cuda", dtype=torch.bfloat16)

tokenizer = Tokenizer.from_directory()
config = Config(vocab_size=tokenizer.get_vocab_size())
with torch.device("meta"):
    model = GPT(config)
model.to_empty(device=device)
model.init_weights()
matrices = list(model.blocks.parameters())
optimizer = torch.optim.AdamW(
    [
        {"params": [model.embed.weight, model.head.weight], "lr": EMBEDDING_LR},
        {"params": matrices, "lr": MATRIX_LR},
    ],
    betas=(0.8, 0.95),
    weight_decay=0.0,
)
for group in optimizer.param_groups:
    group["initial_lr"] = group["lr"]
model = torch.compile(model, dynamic=False)

assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0
accumulate = TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN)
train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)

# Training: the first steps compile, and do not count
trained_seconds = 0.0
step = 0
while True:
    torch.cuda.synchronize()
    started = time.time()
    for _ in range(accumulate):
        with autocast:
            loss = model(x, y)
        (loss / accumulate).backward()
        x, y, epoch = next(train_loader)
    progress = min(trained_seconds / TIME_BUDGET, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * min(1.0, (1 - progress) / WARMDOWN_RATIO)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    loss_value = loss.item()
    if math.isnan(loss_value) or loss_value > 100:
        print("the loss exploded")
        raise SystemExit(1)
    torch.cuda.synchronize()
    if step > WARMUP_STEPS:
        trained_seconds += time.time() - started
    step += 1
    print(f"\rstep {step}, loss {loss_value:.4f}, {TIME_BUDGET - trained_seconds:.0f} s left", end="", flush=True)
    if step > WARMUP_STEPS and trained_seconds >= TIME_BUDGET:
        break
print()

# Evaluation and summary
model.eval()
with autocast:
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {trained_seconds:.1f}")
print(f"total_seconds:    {time.time() - began:.1f}")
print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 2**20:.1f}")
print(f"num_steps:        {step}")
