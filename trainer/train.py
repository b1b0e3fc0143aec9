"""The file under research: a small GPT, its optimizer, its hyperparameters and its training loop, top to bottom.

Change anything here. What must stay true: the script imports only the standard library, numpy, torch and `prepare`;
`model(idx)` returns next-token logits that depend on nothing but the tokens up to each position; the run ends in
`evaluate_bpb`, which hands the model over. The score is bits per byte of held-out text, measured elsewhere from the
logits; the loss printed here decides nothing. The clock starts when `make_dataloader` is first called, so imports,
compilation and warm-up above that line are free within the start-up allowance.
"""

import gc
import math
import sys
from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

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

# ---------------------------------------------------------------------------------------------------------------------
# Hyperparameters: one name, one value, one line.

# Model
DEPTH = 3 if CPU else 8  # transformer blocks
WIDTH = 128 if CPU else 512  # size of the residual stream
HEAD_DIM = 64 if CPU else 128  # size of one attention head; WIDTH must be a multiple of it
MLP_RATIO = 4  # hidden size of an MLP, in widths
VOCAB_SIZE = 2048 if CPU else 8192  # tokenizer to load; must be one of the prepared sizes
ROPE_BASE = 10000  # longest rotary wavelength, in tokens over 2 pi
SOFTCAP = 15.0  # logits are squashed smoothly into (-SOFTCAP, SOFTCAP)
VALUE_EMBED_EVERY = 1 if CPU else 2  # every n-th block, counted from the last, gets value embeddings; 0 for none
VALUE_GATE_CHANNELS = 32  # channels of the residual stream that steer the value embeddings' gates
X0_LAMBDA_INIT = 0.1  # how much of the token embedding each block gets back at first
INIT_STD = WIDTH**-0.5  # standard deviation of matrices and value embeddings; the output projections start at zero
HEAD_STD = 0.001  # standard deviation of the output head: predictions start close to uniform

# Batch
TOTAL_BATCH_TOKENS = 2048 if CPU else 2**19  # tokens per optimizer step
DEVICE_BATCH_ROWS = 8 if CPU else 128  # rows per forward pass; the rest of the batch is gradient accumulation
EVAL_BATCH_ROWS = 8 if CPU else 128  # rows per forward pass when the model is scored

# Optimizer: AdamW's rates are stated for width 768 and scaled by 1/sqrt(width)
EMBEDDING_LR = 0.3 if CPU else 0.6  # AdamW, token and value embeddings
UNEMBEDDING_LR = 0.004  # AdamW, output head
SCALAR_LR = 0.05 if CPU else 0.5  # AdamW, x0 lambdas; residual lambdas take a hundredth of it; not scaled by width
ADAM_BETA1 = 0.8  # decay of AdamW's first moment
ADAM_BETA2 = 0.95  # decay of AdamW's second moment
MATRIX_LR = 0.04  # Muon, every matrix inside the blocks
WEIGHT_DECAY = 0.2  # Muon's cautious decay, fading linearly to zero over the run
MOMENTUM_START = 0.85  # Muon's momentum at the first step
MOMENTUM = 0.95  # Muon's momentum after the ramp
MOMENTUM_RAMP_STEPS = 300  # steps from MOMENTUM_START to MOMENTUM
MUON_BETA2 = 0.95  # decay of Muon's second moment, one per row or column
ORTHOGONAL_STEPS = 5  # Polar Express iterations, at most 5

# Schedule: fractions of the time budget on the server's clock
WARMUP_FRACTION = 0.05  # rising learning rate
WARMDOWN_FRACTION = 0.5  # falling learning rate
FINAL_LR_FRACTION = 0.0  # learning rate at the very end, as a fraction of its peak

# Arithmetic
CPU_BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))  # elsewhere emulated: 15x slower
BF16 = CPU_BF16 if DEVICE == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)  # from Ampere on
COMPUTE_DTYPE = torch.bfloat16 if BF16 else torch.float32  # activations; parameters are always float32
PLAIN_ATTENTION = CPU and BF16  # softmax(QK)V spelled out instead of the fused kernel
COMPILE_FROM_SECONDS = 60 if BF16 else 300  # torch.compile only pays back on budgets at least this long

# ---------------------------------------------------------------------------------------------------------------------
# Model


def norm(x):
    """RMS norm over the last axis, without a learned gain."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    """Rotary position embedding of x [B, T, heads, head_dim] with cos, sin [T, 1, head_dim / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Linear(nn.Linear):
    """Bias-free projection in the dtype of its input, so that precision belongs to the model and not to its caller."""

    def __init__(self, inputs, outputs, std):
        super().__init__(inputs, outputs, bias=False)
        nn.init.uniform_(self.weight, -(3**0.5) * std, 3**0.5 * std)

    def forward(self, input):
        return F.linear(input, self.weight.to(input.dtype))


class Attention(nn.Module):
    def __init__(self, has_value_embedding):
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.query = Linear(WIDTH, WIDTH, INIT_STD)
        self.key = Linear(WIDTH, WIDTH, INIT_STD)
        self.value = Linear(WIDTH, WIDTH, INIT_STD)
        self.out = Linear(WIDTH, WIDTH, 0.0)  # zero, as in the MLP: every block starts as the identity
        self.value_gate = Linear(VALUE_GATE_CHANNELS, self.heads, 0.0) if has_value_embedding else None

    def forward(self, x, value_embedding, cos, sin, mask):
        B, T, _ = x.shape
        q = self.query(x).view(B, T, self.heads, HEAD_DIM)
        k = self.key(x).view(B, T, self.heads, HEAD_DIM)
        v = self.value(x).view(B, T, self.heads, HEAD_DIM)
        if self.value_gate is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :VALUE_GATE_CHANNELS]))  # starts at 1
            v = v + gate.unsqueeze(-1) * value_embedding.view(B, T, self.heads, HEAD_DIM)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, heads, T, head_dim]
        if PLAIN_ATTENTION:
            scores = (q * HEAD_DIM**-0.5) @ k.mT + mask
            y = F.softmax(scores, dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, WIDTH))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = Linear(WIDTH, MLP_RATIO * WIDTH, INIT_STD)
        self.down = Linear(MLP_RATIO * WIDTH, WIDTH, 0.0)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, has_value_embedding):
        super().__init__()
        self.attention = Attention(has_value_embedding)
        self.mlp = MLP()

    def forward(self, x, value_embedding, cos, sin, mask):
        x = x + self.attention(norm(x), value_embedding, cos, sin, mask)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """`model(idx)` is float32 logits [B, T, V] for idx int64 [B, T], T <= MAX_SEQ_LEN; `model(idx, targets)` the mean loss."""

    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor

    def __init__(self, vocab_size):
        super().__init__()
        every = VALUE_EMBED_EVERY
        has_values = [every > 0 and (DEPTH - 1 - i) % every == 0 for i in range(DEPTH)]
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.value_embeddings = nn.ModuleDict()
        for i in range(DEPTH):
            if has_values[i]:
                table = nn.Embedding(vocab_size, WIDTH)
                nn.init.uniform_(table.weight, -(3**0.5) * INIT_STD, 3**0.5 * INIT_STD)
                self.value_embeddings[str(i)] = table
        self.blocks = nn.ModuleList([Block(has) for has in has_values])
        self.resid_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), X0_LAMBDA_INIT))
        self.head = Linear(WIDTH, vocab_size, HEAD_STD)
        nn.init.normal_(self.embedding.weight)

        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN).float(), frequencies).unsqueeze(1)
        self.register_buffer("cos", angles.cos().to(COMPUTE_DTYPE))
        self.register_buffer("sin", angles.sin().to(COMPUTE_DTYPE))
        size = MAX_SEQ_LEN if PLAIN_ATTENTION else 0
        self.register_buffer("mask", torch.full((size, size), -math.inf, dtype=COMPUTE_DTYPE).triu(1))

    def forward(self, idx, targets=None):
        T = idx.size(1)
        cos, sin, mask = self.cos[:T], self.sin[:T], self.mask[:T, :T]
        resid, x0_share = self.resid_lambdas.to(COMPUTE_DTYPE), self.x0_lambdas.to(COMPUTE_DTYPE)
        x = x0 = norm(self.embedding(idx).to(COMPUTE_DTYPE))
        for i, block in enumerate(self.blocks):
            name = str(i)
            values = self.value_embeddings[name](idx).to(COMPUTE_DTYPE) if name in self.value_embeddings else None
            x = block(resid[i] * x + x0_share[i] * x0, values, cos, sin, mask)
        # Dividing the small activations instead of the large logits saves a pass over [B, T, V].
        logits = SOFTCAP * torch.tanh(self.head(norm(x) / SOFTCAP).float())
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# ---------------------------------------------------------------------------------------------------------------------
# Optimizer

# Quintic polynomials of the Polar Express (Amsel et al. 2025), one per iteration: each moves all singular values
# closer to 1 than any fixed polynomial would.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(matrices):
    """The nearest matrices [n, rows, cols] whose singular values are all about 1, for rows <= cols."""
    x = matrices.to(COMPUTE_DTYPE)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS[:ORTHOGONAL_STEPS]:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


class Muon:
    """Momentum whose update is orthogonalised and then normalised per neuron; matrices of one shape move as one stack."""

    def __init__(self, matrices, lr):
        shapes = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.param_groups = [{"params": params, "lr": lr} for params in shapes.values()]
        for group in self.param_groups:
            weight = torch.stack(group["params"]).detach()
            group["neuron_axis"] = -1 if weight.size(-2) >= weight.size(-1) else -2
            group["average"] = torch.zeros_like(weight)
            group["square"] = torch.zeros_like(weight.mean(group["neuron_axis"], keepdim=True))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            params, lr, momentum, axis = group["params"], group["lr"], group["momentum"], group["neuron_axis"]
            weight = torch.stack(params)
            grad = torch.stack([p.grad for p in params])
            rows, cols = weight.shape[-2:]
            average, square = group["average"], group["square"]
            average.lerp_(grad, 1 - momentum)
            update = grad.lerp_(average, momentum)  # Nesterov
            update = orthogonalise(update) if rows <= cols else orthogonalise(update.mT).mT

            # Even out the neurons' step sizes by their running second moment, and keep the norm of the whole update.
            size = update.norm(dim=(-2, -1), keepdim=True)
            square.lerp_(update.square().mean(axis, keepdim=True), 1 - MUON_BETA2)
            update = update * square.clamp_min(1e-10).rsqrt()
            update *= size / update.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10)

            # Cautious decay: shrink only the weights that the update does not push outwards.
            lr = lr * max(1.0, rows / cols) ** 0.5
            weight.sub_(weight * (update * weight >= 0), alpha=lr * group["decay"])
            weight.sub_(update, alpha=lr)
            for param, moved in zip(params, weight, strict=True):
                param.copy_(moved)


def make_optimizers(model):
    """Muon for the matrices inside the blocks, AdamW for embeddings, head and scalars; fresh state."""
    scale = (WIDTH / 768) ** -0.5
    betas = (ADAM_BETA1, ADAM_BETA2)
    embeddings = [model.embedding.weight, *(e.weight for e in model.value_embeddings.values())]
    groups = [
        {"params": embeddings, "lr": EMBEDDING_LR * scale, "betas": betas},
        {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale, "betas": betas},
        {"params": [model.resid_lambdas], "lr": SCALAR_LR * 0.01, "betas": betas},
        {"params": [model.x0_lambdas], "lr": SCALAR_LR, "betas": (0.96, ADAM_BETA2)},
    ]
    optimizers = (
        torch.optim.AdamW(groups, eps=1e-10, weight_decay=0.0, fused=True),
        Muon(list(model.blocks.parameters()), lr=MATRIX_LR),
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def lr_multiplier(progress):
    """Trapezoid over progress 0..1: up during WARMUP_FRACTION, flat, down during WARMDOWN_FRACTION."""
    if progress < WARMUP_FRACTION:
        return progress / WARMUP_FRACTION
    if progress <= 1 - WARMDOWN_FRACTION:
        return 1.0
    return FINAL_LR_FRACTION + (1 - FINAL_LR_FRACTION) * (1 - progress) / WARMDOWN_FRACTION


def optimizer_step(optimizers, step, progress):
    """Set this step's rates, momentum and decay, move the weights, drop the gradients."""
    multiplier = lr_multiplier(progress)
    ramp = min(step / MOMENTUM_RAMP_STEPS, 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * multiplier
            if isinstance(optimizer, Muon):
                group["momentum"] = MOMENTUM_START + (MOMENTUM - MOMENTUM_START) * ramp
                group["decay"] = WEIGHT_DECAY * (1 - progress)
        optimizer.step()
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = None


def can_compile():
    """Whether this budget is worth compiling for and the machine can (a C++ compiler on a CPU, Triton on a GPU)."""
    if TIME_BUDGET < COMPILE_FROM_SECONDS:
        return False

    def probe(x):
        return torch.tanh(x).square().sum()

    try:
        torch.compile(probe)(torch.ones(64, 64, device=DEVICE))
    except (RuntimeError, OSError, ImportError) as error:
        print(f"torch.compile does not work here, training eagerly: {type(error).__name__}: {str(error)[:300]}")
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Everything before the clock: build, compile, warm up on synthetic tokens, rehearse the hand-off

torch.manual_seed(SEED)
tokenizer = Tokenizer.load(VOCAB_SIZE)
model = GPT(tokenizer.vocab_size).to(DEVICE)
train_model = torch.compile(model, dynamic=False) if can_compile() else model

micro_tokens = DEVICE_BATCH_ROWS * MAX_SEQ_LEN
if TOTAL_BATCH_TOKENS % micro_tokens:
    sys.exit(f"TOTAL_BATCH_TOKENS {TOTAL_BATCH_TOKENS} is no multiple of {DEVICE_BATCH_ROWS} rows of {MAX_SEQ_LEN} tokens")
micro_steps = TOTAL_BATCH_TOKENS // micro_tokens

# The warm-up takes real steps, so that kernels are built and memory is allocated; then its learning is undone.
initial_weights = {name: value.clone() for name, value in model.state_dict().items()}
optimizers = make_optimizers(model)
for _ in range(1 if train_model is model else 2):  # a compiled model settles on its second step
    train_model(*synthetic_batch(DEVICE_BATCH_ROWS, MAX_SEQ_LEN)).backward()
    optimizer_step(optimizers, step=0, progress=0.0)
model.load_state_dict(initial_weights)
optimizers = make_optimizers(model)
del initial_weights
rehearse(model)
gc.collect()
gc.freeze()
gc.disable()  # a collection costs more than the few cycles it would find

parameters = sum(p.numel() for p in model.parameters())
how = "compiled" if train_model is not model else "eager"
print(f"{parameters / 1e6:.2f}M parameters, {micro_steps} x {micro_tokens} tokens per step, {how}, {COMPUTE_DTYPE}")

# ---------------------------------------------------------------------------------------------------------------------
# Training

batches = make_dataloader(tokenizer, DEVICE_BATCH_ROWS, MAX_SEQ_LEN, "train")
inputs, targets, epoch = next(batches)
total_seconds = left = seconds_left()
recent_step_seconds = deque([0.0], maxlen=8)
step, loss_value = 0, math.nan
while left > 1.1 * max(recent_step_seconds):
    loss_sum = torch.zeros((), device=DEVICE)
    for _ in range(micro_steps):
        loss = train_model(inputs, targets)
        (loss / micro_steps).backward()
        loss_sum += loss.detach()
        inputs, targets, epoch = next(batches)  # on a GPU this overlaps the backward pass
    optimizer_step(optimizers, step, progress=1 - left / total_seconds)
    step += 1
    loss_value = loss_sum.item() / micro_steps  # waits for the device, so that the clock below sees the whole step
    if not math.isfinite(loss_value):
        sys.exit(f"the training loss became {loss_value} at step {step}: lower a learning rate or undo the last change")
    report(step, loss=loss_value, tokens=step * TOTAL_BATCH_TOKENS, epoch=epoch)
    before, left = left, seconds_left()
    recent_step_seconds.append(before - left)

print(f"{step} steps, {step * TOTAL_BATCH_TOKENS / 1e6:.2f}M tokens, last training loss {loss_value:.4f}")
evaluate_bpb(model, tokenizer, EVAL_BATCH_ROWS)
