"""A port of karpathy/autoresearch's recipe (at 228791f): its settings, its way of training, none of its text.

A candidate like trainer/train.py: the referee runs it, nothing imports it, and `contenders` edits the constants at the top for
the contender "same model". Profile gpu has upstream's own sizes, profile cpu those that its README recommends for small
machines (depth 4, width 64 a block, one pattern "L", a batch of 2**14; vocabulary 2048 and a context of 256 as our profile).
What is upstream's: best-fit packing from a buffer of 1000 documents in plain Python, a batch in as few forward passes as
DEVICE_BATCH_ROWS allows, fused attention, logits of the whole micro-batch in float32, softcapped, then cross-entropy,
Muon with AdamW, their rates and schedules, torch.compile(dynamic=False), compiled optimizer steps on a GPU.

What differs, and whom it favours:

- The loader finds tokens, not text: no time for tokenising (favours the port).
- A document that is longer than a row is cut into rows, and documents come shuffled. Upstream would keep the beginning of each
  and drop the rest, which suits the short, shuffled texts that it is used with, and not our files (favours the port).
- Full attention by torch's fused kernel, since FlashAttention 3 is a download and its window is a mask here, which is slower.
- Upstream trains its first eleven steps outside of its clock. Here nothing that touches the data is free, for anybody, so
  the warm-up runs on synthetic tokens and its learning is undone.
- A CPU without bfloat16 instructions computes in float32, five times faster than with emulated bfloat16 (favours the port).
- On a CPU the optimizer steps stay eager: compiling them gained nothing there (2,850 tokens a core-second against 2,899) and
  took 40 s more of start-up (favours the port). Compiling the model gained a third, as upstream does, so that stays.
"""

import gc
import math
import sys
import time
from collections import deque

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import prepare.runtime
from prepare import (
    DEVICE,
    MAX_SEQ_LEN,
    PROFILE,
    SEED,
    TIME_BUDGET,
    Tokenizer,
    evaluate_bpb,
    make_dataloader,
    rehearse,
    report,
    seconds_left,
    synthetic_batch,
)

CPU = PROFILE == "cpu"

# Model
DEPTH = 4 if CPU else 8  # transformer blocks
WIDTH = 256 if CPU else 512  # upstream: 64 a block
HEAD_DIM = 128  # size of one attention head
MLP_RATIO = 4  # hidden size of an MLP, in widths
VOCAB_SIZE = 2048 if CPU else 8192  # tokenizer to load
VALUE_EMBED_EVERY = 2  # every n-th block, counted from the last, gets value embeddings; 0 for none
VALUE_GATE_CHANNELS = 32  # channels that steer the value embeddings' gates

# Batch
TOTAL_BATCH_TOKENS = 2**14 if CPU else 2**19  # tokens per optimizer step
DEVICE_BATCH_ROWS = 128  # rows per forward pass, where the batch has so many
DOCUMENT_BUFFER = 1000  # documents among which the loader looks for the one that fits best

# Optimizer
EMBEDDING_LR = 0.6  # AdamW, token and value embeddings
UNEMBEDDING_LR = 0.004  # AdamW, output head
MATRIX_LR = 0.04  # Muon
SCALAR_LR = 0.5  # AdamW, x0 lambdas; residual lambdas take a hundredth of it
WEIGHT_DECAY = 0.2  # Muon's cautious decay, fading to zero
WARMDOWN_RATIO = 0.5  # fraction of the budget with a falling rate

SHARD_TOKENS = 2**25  # of the store that are cut into documents at a time
COMPILE_FROM_SECONDS = 20  # upstream always compiles; shorter budgets are tests, which would compile longer than they train

CPU_BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
BF16 = CPU_BF16 if CPU else torch.cuda.is_bf16_supported(including_emulation=False)
COMPUTE_DTYPE = torch.bfloat16 if BF16 else torch.float32

# ---------------------------------------------------------------------------------------------------------------------
# Loader


def cut_documents(tokens, bos_token_id, row_tokens):
    """Return (starts, lengths) of the texts in tokens, without their BOS; none is longer than a row leaves room for."""
    borders = np.flatnonzero(tokens == bos_token_id)
    starts, ends = np.append(0, borders + 1), np.append(borders, len(tokens))
    longest = row_tokens - 1
    pieces = -(-(ends - starts) // longest)
    first = np.cumsum(pieces) - pieces
    starts = np.repeat(starts, pieces) + longest * (np.arange(pieces.sum()) - np.repeat(first, pieces))
    return starts, np.minimum(longest, np.repeat(ends, pieces) - starts)


def documents(tokens, bos_token_id, row_tokens, seed):
    """Yield ([BOS, text...], epoch) without end, shuffled among SHARD_TOKENS of the store."""
    random, epoch = np.random.default_rng(seed), 1
    while True:
        for offset in range(0, len(tokens), SHARD_TOKENS):
            shard = tokens[offset : offset + SHARD_TOKENS]
            starts, lengths = cut_documents(shard, bos_token_id, row_tokens)
            for i in random.permutation(len(starts)).tolist():
                yield np.append(np.int64(bos_token_id), shard[starts[i] : starts[i] + lengths[i]]), epoch
        epoch += 1


def best_fit_batches(tokens, batch_size, sequence_length, bos_token_id, seed):
    """Yield (rows, epoch), int64 [B, T + 1]: full of whole documents, the longest that fits first.

    Every row begins with BOS. Where nothing fits, the shortest document is cropped to fill the row.
    """
    row_tokens = sequence_length + 1
    stream = documents(tokens, bos_token_id, row_tokens, seed)
    buffer, lengths, epoch = [], [], 1
    while True:
        rows = np.empty((batch_size, row_tokens), dtype=np.int64)
        for row in rows:
            filled = 0
            while filled < row_tokens:
                while len(buffer) < DOCUMENT_BUFFER:
                    document, epoch = next(stream)
                    buffer.append(document)
                    lengths.append(len(document))
                left, best, best_length = row_tokens - filled, -1, 0
                for i, length in enumerate(lengths):
                    if best_length < length <= left:
                        best, best_length = i, length
                if best < 0:
                    best, best_length = lengths.index(min(lengths)), left
                del lengths[best]
                row[filled : filled + best_length] = buffer.pop(best)[:best_length]
                filled += best_length
        yield rows, epoch


def on_device(batches):
    """Yield (inputs, targets, epoch), int64 [B, T] on DEVICE; on a GPU the same memory each time, as upstream has it."""
    rows, epoch = next(batches)
    host = torch.empty((2, rows.shape[0], rows.shape[1] - 1), dtype=torch.int64, pin_memory=not CPU)
    device = host if CPU else torch.empty_like(host, device=DEVICE)
    while True:
        host[0].copy_(torch.from_numpy(rows[:, :-1]))
        host[1].copy_(torch.from_numpy(rows[:, 1:]))
        if not CPU:
            device.copy_(host, non_blocking=True)
        yield device[0], device[1], epoch
        rows, epoch = next(batches)


# ---------------------------------------------------------------------------------------------------------------------
# Model


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos + right * sin, right * cos - left * sin), dim=-1)


def linear(inputs, outputs, bound):
    """A projection without bias, uniform in (-bound, bound)."""
    made = nn.Linear(inputs, outputs, bias=False)
    nn.init.uniform_(made.weight, -bound, bound)
    return made


BOUND = 3**0.5 * WIDTH**-0.5


class Attention(nn.Module):
    def __init__(self, has_values):
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.query, self.key, self.value = (linear(WIDTH, WIDTH, BOUND) for _ in range(3))
        self.out = linear(WIDTH, WIDTH, 0.0)
        self.gate = linear(VALUE_GATE_CHANNELS, self.heads, 0.0) if has_values else None

    def forward(self, x, values, cos, sin):
        B, T, _ = x.shape
        q, k, v = (project(x).view(B, T, self.heads, HEAD_DIM) for project in (self.query, self.key, self.value))
        if self.gate is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., :VALUE_GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * values.view(B, T, self.heads, HEAD_DIM)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = (each.transpose(1, 2) for each in (q, k, v.to(q.dtype)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, WIDTH))


class Block(nn.Module):
    def __init__(self, has_values):
        super().__init__()
        self.attention = Attention(has_values)
        self.up = linear(WIDTH, MLP_RATIO * WIDTH, BOUND)
        self.down = linear(MLP_RATIO * WIDTH, WIDTH, 0.0)

    def forward(self, x, values, cos, sin):
        x = x + self.attention(norm(x), values, cos, sin)
        return x + self.down(F.relu(self.up(norm(x))).square())


class GPT(nn.Module):
    """`model(idx)` is float32 logits [B, T, V]; `model(idx, targets)` the mean loss."""

    def __init__(self, vocab_size):
        super().__init__()
        every = VALUE_EMBED_EVERY
        has_values = [every > 0 and (DEPTH - 1 - i) % every == 0 for i in range(DEPTH)]
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.head = nn.Linear(WIDTH, vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.head.weight, std=0.001)
        self.value_embeddings = nn.ModuleDict({str(i): nn.Embedding(vocab_size, WIDTH) for i in range(DEPTH) if has_values[i]})
        for table in self.value_embeddings.values():
            nn.init.uniform_(table.weight, -BOUND, BOUND)
        self.blocks = nn.ModuleList([Block(has) for has in has_values])
        self.resid_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        frequencies = 10000 ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN).float(), frequencies).unsqueeze(1)
        self.register_buffer("cos", angles.cos().to(COMPUTE_DTYPE))
        self.register_buffer("sin", angles.sin().to(COMPUTE_DTYPE))
        for table in (self.embedding, *self.value_embeddings.values()):
            table.to(COMPUTE_DTYPE)

    @torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=BF16)
    def forward(self, idx, targets=None):
        cos, sin = self.cos[: idx.size(1)], self.sin[: idx.size(1)]
        x = x0 = norm(self.embedding(idx))
        for i, block in enumerate(self.blocks):
            values = self.value_embeddings[str(i)](idx) if str(i) in self.value_embeddings else None
            x = block(self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0, values, cos, sin)
        logits = self.head(norm(x)).float()
        logits = 15 * torch.tanh(logits / 15)
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


# ---------------------------------------------------------------------------------------------------------------------
# Optimizer

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def adamw_step(weight, grad, average, square, step, lr, beta1, beta2):
    """Move one tensor; step and rates are numbers, or 0-D tensors for a compiled step."""
    average.lerp_(grad, 1 - beta1)
    square.lerp_(grad.square(), 1 - beta2)
    scale = (square / (1 - beta2**step)).sqrt() + 1e-10
    weight.sub_(average / scale * (lr / (1 - beta1**step)))


def muon_step(weight, grad, average, square, axis, lr, momentum, decay):
    """Move a stack of matrices [n, rows, cols]: Nesterov momentum, orthogonalised, evened out by neuron, cautious decay."""
    average.lerp_(grad, 1 - momentum)
    grad = grad.lerp(average, momentum)
    x = grad.to(COMPUTE_DTYPE)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    tall = x.size(-2) > x.size(-1)
    for a, b, c in POLAR_EXPRESS:
        gram = x.mT @ x if tall else x @ x.mT
        gram = b * gram + c * (gram @ gram)
        x = a * x + (x @ gram if tall else gram @ x)
    mean = x.float().square().mean(axis, keepdim=True)
    before = mean.sum(dim=(-2, -1), keepdim=True).sqrt()
    square.lerp_(mean, 0.05)
    scale = square.clamp_min(1e-10).rsqrt()
    after = (mean * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    update = x.float() * (scale * (before / after.clamp_min(1e-10)))
    weight.sub_(lr * update + lr * decay * weight * (update * weight >= 0))


class MuonAdamW:
    """Muon for the matrices inside of the blocks, one stack for each shape; AdamW, tensor by tensor, for the rest."""

    def __init__(self, model):
        scale = (WIDTH / 768) ** -0.5
        tables = [model.embedding.weight, *(table.weight for table in model.value_embeddings.values())]
        rates = [(model.head.weight, UNEMBEDDING_LR * scale, 0.8), *((table, EMBEDDING_LR * scale, 0.8) for table in tables)]
        rates += [(model.resid_lambdas, SCALAR_LR * 0.01, 0.8), (model.x0_lambdas, SCALAR_LR, 0.96)]
        self.adamw = [(p, lr, beta1, torch.zeros_like(p), torch.zeros_like(p)) for p, lr, beta1 in rates]
        shapes = {}
        for matrix in model.blocks.parameters():
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.muon = []
        for (rows, cols), matrices in shapes.items():
            axis = -1 if rows >= cols else -2
            average = torch.zeros_like(torch.stack(matrices))
            square = torch.zeros_like(average.mean(axis, keepdim=True))
            self.muon.append((matrices, MATRIX_LR * max(1.0, rows / cols) ** 0.5, axis, average, square))
        names = ("step", "lr", "beta1", "beta2", "momentum", "decay")
        self.tensors = {name: torch.tensor(0.0) for name in names}  # a compiled step would compile each number anew

    def scalars(self, **values):
        """Return the values as the steps want them."""
        if not COMPILED_STEPS:
            return values
        for name, value in values.items():
            self.tensors[name].fill_(value)
        return {name: self.tensors[name] for name in values}

    @torch.no_grad()
    def step_adamw(self, step, multiplier):
        for weight, lr, beta1, average, square in self.adamw:
            scalars = self.scalars(step=step + 1, lr=lr * multiplier, beta1=beta1, beta2=0.95)
            adamw_step(weight, weight.grad, average, square, **scalars)

    @torch.no_grad()
    def step_muon(self, multiplier, momentum, decay):
        for matrices, lr, axis, average, square in self.muon:
            weight, grad = torch.stack(matrices), torch.stack([matrix.grad for matrix in matrices])
            scalars = self.scalars(lr=lr * multiplier, momentum=momentum, decay=decay)
            muon_step(weight, grad, average, square, axis, **scalars)
            torch._foreach_copy_(matrices, list(weight.unbind(0)))


def schedule(step, progress):
    """Return (multiplier of the rates, momentum, decay)."""
    ramp = min(step / 300, 1.0)
    return min(1.0, (1 - progress) / WARMDOWN_RATIO), 0.85 + 0.1 * ramp, WEIGHT_DECAY * (1 - progress)


def can_compile():
    """Whether torch.compile works here: a C++ compiler on a CPU, Triton on a GPU."""
    if TIME_BUDGET < COMPILE_FROM_SECONDS:
        return False
    try:
        torch.compile(lambda x: torch.tanh(x).square().sum())(torch.ones(64, 64, device=DEVICE))
    except (RuntimeError, OSError, ImportError) as error:
        print(f"torch.compile does not work here, training eagerly: {type(error).__name__}: {str(error)[:300]}")
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Before the clock: build, compile, warm up on synthetic tokens


def now():
    """Seconds, once the device has done what it was given."""
    if not CPU:
        torch.cuda.synchronize()
    return time.perf_counter()


torch.manual_seed(SEED)
torch.set_float32_matmul_precision("high")
tokenizer = Tokenizer.load(VOCAB_SIZE)
model = GPT(tokenizer.vocab_size).to(DEVICE)
compiles = can_compile()
train_model = torch.compile(model, dynamic=False) if compiles else model
COMPILED_STEPS = compiles and not CPU
if COMPILED_STEPS:
    adamw_step = torch.compile(adamw_step, dynamic=False, fullgraph=True)
    muon_step = torch.compile(muon_step, dynamic=False, fullgraph=True)

batch_rows = min(DEVICE_BATCH_ROWS, TOTAL_BATCH_TOKENS // MAX_SEQ_LEN)
if batch_rows < 1 or TOTAL_BATCH_TOKENS % (batch_rows * MAX_SEQ_LEN):
    sys.exit(f"TOTAL_BATCH_TOKENS {TOTAL_BATCH_TOKENS} is no multiple of {batch_rows} rows of {MAX_SEQ_LEN} tokens")
micro_steps = TOTAL_BATCH_TOKENS // (batch_rows * MAX_SEQ_LEN)


def warm_up():
    """Take one step on random tokens; returns (seconds, those of Muon)."""
    began = now()
    for _ in range(micro_steps):
        train_model(*synthetic_batch(batch_rows, MAX_SEQ_LEN)).backward()
    multiplier, momentum, decay = schedule(0, 0.0)
    optimizer.step_adamw(0, multiplier)
    muon_began = now()
    optimizer.step_muon(multiplier, momentum, decay)
    model.zero_grad(set_to_none=True)
    ended = now()
    return ended - began, ended - muon_began


initial_weights = {name: value.clone() for name, value in model.state_dict().items()}
optimizer = MuonAdamW(model)
first_seconds, _ = warm_up()
step_seconds, muon_seconds = warm_up()
model.load_state_dict(initial_weights)
optimizer = MuonAdamW(model)
del initial_weights
rehearse(model)
gc.collect()
gc.freeze()
gc.disable()
report(
    0,
    compile_seconds=max(0.0, first_seconds - step_seconds) if compiles else 0.0,
    step_seconds=step_seconds,
    muon_seconds=muon_seconds,
)
parameters = sum(p.numel() for p in model.parameters())
how = "compiled" if compiles else "eager"
print(f"{parameters / 1e6:.2f}M parameters, {micro_steps} x {batch_rows * MAX_SEQ_LEN} tokens per step, {how}, {COMPUTE_DTYPE}")

# ---------------------------------------------------------------------------------------------------------------------
# Training

make_dataloader(tokenizer, batch_rows, MAX_SEQ_LEN, "train")  # opens the data and starts the clock; its batches are not used
tokens = prepare.runtime._tokens[tokenizer.vocab_size]
batches = on_device(best_fit_batches(tokens, batch_rows, MAX_SEQ_LEN, tokenizer.bos_token_id, SEED))
inputs, targets, epoch = next(batches)
left = seconds_left()
step, loss_value, loader_seconds = 0, math.nan, 0.0
recent_step_seconds = deque([0.0], maxlen=8)
while left > 1.1 * max(recent_step_seconds):
    for _ in range(micro_steps):
        loss = train_model(inputs, targets)
        train_loss = loss.detach()
        (loss / micro_steps).backward()
        began = time.perf_counter()
        inputs, targets, epoch = next(batches)
        loader_seconds += time.perf_counter() - began
    multiplier, momentum, decay = schedule(step, progress=1 - left / TIME_BUDGET)
    optimizer.step_adamw(step, multiplier)
    optimizer.step_muon(multiplier, momentum, decay)
    model.zero_grad(set_to_none=True)
    step += 1
    loss_value = train_loss.item()
    if not math.isfinite(loss_value) or loss_value > 100:
        sys.exit(f"the training loss became {loss_value} at step {step}")
    report(step, loss=loss_value, tokens=step * TOTAL_BATCH_TOKENS, loader_seconds=loader_seconds, epoch=epoch)
    before, left = left, seconds_left()
    recent_step_seconds.append(before - left)
print(f"{step} steps, {step * TOTAL_BATCH_TOKENS / 1e6:.2f}M tokens, last training loss {loss_value:.4f}")
evaluate_bpb(model, tokenizer, batch_rows)
