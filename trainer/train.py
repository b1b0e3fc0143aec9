"""The file under research: a small GPT, its optimizer, its hyperparameters and its training loop, top to bottom.

Change anything here. What must stay true: the script imports only the standard library, numpy, torch and `prepare`;
`model(idx)` returns next-token logits that depend on nothing but the tokens up to each position; the run ends in
`evaluate_bpb`, which hands the model over. The score is bits per byte of held-out text, measured elsewhere from the
logits; the loss printed here decides nothing. The clock starts when `make_dataloader` is first called, so imports,
compilation and warm-up above that line are free within the start-up allowance. What is best on the machine at hand (the
dtype, the attention, the loss, the rows that fit into its memory) is tried there, and printed.
"""

import gc
import math
import sys
import time
from collections import deque
from contextlib import ExitStack
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from prepare import (
    DEVICE,
    MAX_SEQ_LEN,
    MEMORY_BYTES,
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
DEPTH = 4 if CPU else 8  # transformer blocks; fewer where the memory is too small for them
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
TOTAL_BATCH_TOKENS = 2048 if CPU else 2**18  # tokens per optimizer step
DEVICE_BATCH_ROWS = 8 if CPU else 64  # rows per forward pass where they fit; the rest of the batch is gradient accumulation
EVAL_BATCH_ROWS = 8 if CPU else 32  # rows per forward pass when the model is scored, where they fit

# Optimizer: AdamW's rates are stated for width 768 and scaled by 1/sqrt(width)
EMBEDDING_LR = 0.3 if CPU else 0.6  # AdamW, token and value embeddings
UNEMBEDDING_LR = 0.004  # AdamW, output head
SCALAR_LR = 0.05 if CPU else 0.5  # AdamW, x0 lambdas; residual lambdas take a hundredth of it; not scaled by width
SHIFT_LR = 0.06  # AdamW, how much of the token before is mixed in; not scaled by width
ADAM_BETA1 = 0.8  # decay of AdamW's first moment
ADAM_BETA2 = 0.99 if CPU else 0.95  # decay of AdamW's second moment
ADAM_EPS = 1e-10  # AdamW, against division by zero
MATRIX_LR = 0.04  # Muon, every matrix inside the blocks
WEIGHT_DECAY = 0.05 if CPU else 0.2  # Muon's cautious decay, fading linearly to zero over the run
MOMENTUM_START = 0.85  # Muon's momentum at the first step
MOMENTUM = 0.95  # Muon's momentum after the ramp
MOMENTUM_RAMP_STEPS = 300  # steps from MOMENTUM_START to MOMENTUM
MUON_BETA2 = 0.95  # decay of Muon's second moment, one per row or column
ORTHOGONAL_STEPS = 5  # Polar Express iterations, at most 5

# Schedule: fractions of the time budget on the server's clock
WARMUP_FRACTION = 0.05  # rising learning rate
WARMDOWN_FRACTION = 0.8 if CPU else 0.5  # falling learning rate
FINAL_LR_FRACTION = 0.0  # learning rate at the very end, as a fraction of its peak

# Machine: the dtype, the attention and the loss are chosen by measuring them at start-up
LOSS_CHUNK_TOKENS = 64 if CPU else 4096  # tokens whose logits exist at once in the fused loss
COMPILE_FROM_SECONDS = 60 if CPU else 30  # torch.compile only pays back on budgets at least this long
QUEUED_STEPS = 0 if CPU else 1  # steps that a GPU may be behind this script, so that it never waits for it
STATE_BYTES = 16  # bytes per parameter: the weight, its gradient and two moments in float32
MEMORY_SHARE = 0.5 if CPU else 0.9  # of MEMORY_BYTES, for training; on a CPU torch itself and the scorers need the rest
TIE = 1.05  # times this close are equal, and the first listed wins: two runs of one lab should choose alike

# ---------------------------------------------------------------------------------------------------------------------
# What this machine does best: measured, not looked up


def seconds_of(run):
    """What `run()` takes: CPU time on a CPU, where other programs run too; elapsed time on a GPU."""
    synchronize = torch.get_device_module(DEVICE).synchronize
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    synchronize()
    start = clock()
    run()
    synchronize()
    return clock() - start


def fastest(what, candidates, rounds=3):
    """The name of the quickest of `candidates` {name: function}: they take turns, the first round warms up, the best counts.

    A candidate that raises RuntimeError (no such kernel, out of memory) is out. Prints the reason.
    """
    running = dict(candidates)
    seconds = dict.fromkeys(candidates, math.inf)
    for i in range(1 + rounds):
        for name, run in list(running.items()):
            try:
                spent = seconds_of(run)
            except RuntimeError as error:
                del running[name]
                seconds[name] = math.inf
                print(f"{what}, {name}: {type(error).__name__}: {str(error)[:300]}")
            else:
                seconds[name] = min(seconds[name], spent) if i > 0 else math.inf
    limit = TIE * min(seconds.values())
    best = next(name for name in candidates if seconds[name] <= limit)
    told = [f"{name} {1e3 * seconds[name]:.2f} ms" if name in running else f"{name} does not run" for name in candidates]
    print(f"{what}: {', '.join(told)} -> {best}")
    return best


def forward_backward(function, *arguments, wrt):
    """A function of no arguments: `function` forward, and backward to its first `wrt` arguments."""
    leaves = [t.detach().requires_grad_() for t in arguments[:wrt]]

    def run():
        out = function(*leaves, *arguments[wrt:])
        torch.autograd.grad(out, leaves, torch.ones_like(out))

    return run


def choose_dtype():
    """The dtype of activations. A CPU may emulate bfloat16, many times slower than float32; GPUs have it from Ampere on."""
    if DEVICE != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    x, weight = torch.randn(512, WIDTH), torch.randn(MLP_RATIO * WIDTH, WIDTH)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    runs = {name: forward_backward(F.linear, x.to(dtype), weight.to(dtype), wrt=2) for name, dtype in dtypes.items()}
    return dtypes[fastest("matrix products", runs)]


# One kernel of scaled_dot_product_attention each; which is the quickest differs by GPU, and some have not all.
GPU_ATTENTION = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def attention_kernels(q, k, v):
    """The kernels in the order in which they are to be tried for q, k, v [B, heads, T, head_dim]: the quickest first."""
    run = forward_backward(fused_attention, q, k, v, None, wrt=3)

    def run_on(backend):
        with sdpa_kernel(backend):
            run()

    best = fastest("attention", {name: partial(run_on, GPU_ATTENTION[name]) for name in ("cudnn", "flash", "efficient")})
    return [GPU_ATTENTION[best], *(backend for name, backend in GPU_ATTENTION.items() if name != best)]


def choose_attention():
    """The function that attends; on a GPU it uses the quickest kernel from now on."""
    q, k, v = torch.randn(3, DEVICE_BATCH_ROWS, WIDTH // HEAD_DIM, MAX_SEQ_LEN, HEAD_DIM, device=DEVICE).to(COMPUTE_DTYPE)
    if DEVICE != "cpu":
        settings.enter_context(sdpa_kernel(attention_kernels(q, k, v), set_priority=True))
        return fused_attention
    mask = causal_mask(MAX_SEQ_LEN, COMPUTE_DTYPE)
    functions = {"sdpa": fused_attention, "plain": plain_attention}
    return functions[fastest("attention", {name: forward_backward(f, q, k, v, mask, wrt=3) for name, f in functions.items()})]


def choose_loss(vocab_size, compiled):
    """`plain_cross_entropy` or `fused_cross_entropy`; `compiled` as the model will be."""
    x = torch.randn(DEVICE_BATCH_ROWS * MAX_SEQ_LEN, WIDTH, device=DEVICE).to(COMPUTE_DTYPE)
    weight = HEAD_STD * torch.randn(vocab_size, WIDTH, device=DEVICE)
    targets = torch.randint(vocab_size, x.shape[:1], device=DEVICE)
    functions = {"fused": fused_cross_entropy, "plain": plain_cross_entropy}  # a tie goes to the one that needs less memory
    timed = {**functions, "plain": torch.compile(plain_cross_entropy, dynamic=False)} if compiled else functions
    runs = {name: forward_backward(function, x, weight, targets, wrt=2) for name, function in timed.items()}
    return functions[fastest("loss", runs, rounds=2 if DEVICE == "cpu" else 8)]


# ---------------------------------------------------------------------------------------------------------------------
# Model


def norm(x):
    """RMS norm over the last axis, without a learned gain."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    """Rotary position embedding of x [B, T, heads, head_dim] with cos, sin [T, 1, head_dim / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def with_previous(x, share):
    """x [B, T, WIDTH], each position with `share` [WIDTH] of the one before it: what follows what is then one step away."""
    return x + share.to(x.dtype) * F.pad(x[:, :-1], (0, 0, 1, 0))


class Linear(nn.Linear):
    """Bias-free projection in the dtype of its input, so that precision belongs to the model and not to its caller."""

    def __init__(self, inputs, outputs, std):
        super().__init__(inputs, outputs, bias=False)
        nn.init.uniform_(self.weight, -(3**0.5) * std, 3**0.5 * std)

    def forward(self, input):
        return F.linear(input, self.weight.to(input.dtype))


def causal_mask(size, dtype):
    """What is added to scores [size, size]: -inf where a token would see a later one."""
    return torch.full((size, size), -math.inf, dtype=dtype).triu(1)


def plain_attention(q, k, v, mask):
    """softmax(QK)V spelled out, for q, k, v [B, heads, T, head_dim] and mask [T, T]."""
    return F.softmax((q * HEAD_DIM**-0.5) @ k.mT + mask, dim=-1) @ v


def fused_attention(q, k, v, mask):
    """The same by torch's own kernel, which needs no mask."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Attention(nn.Module):
    def __init__(self, has_value_embedding):
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.shift = nn.Parameter(torch.zeros(WIDTH))
        self.query = Linear(WIDTH, WIDTH, INIT_STD)
        self.key = Linear(WIDTH, WIDTH, INIT_STD)
        self.value = Linear(WIDTH, WIDTH, INIT_STD)
        self.out = Linear(WIDTH, WIDTH, 0.0)  # zero, as in the MLP: every block starts as the identity
        self.value_gate = Linear(VALUE_GATE_CHANNELS, self.heads, 0.0) if has_value_embedding else None

    def forward(self, x, value_embedding, cos, sin, mask):
        B, T, _ = x.shape
        x = with_previous(x, self.shift)
        q = self.query(x).view(B, T, self.heads, HEAD_DIM)
        k = self.key(x).view(B, T, self.heads, HEAD_DIM)
        v = self.value(x).view(B, T, self.heads, HEAD_DIM)
        if self.value_gate is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :VALUE_GATE_CHANNELS]))  # starts at 1
            v = v + gate.unsqueeze(-1) * value_embedding.view(B, T, self.heads, HEAD_DIM)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, heads, T, head_dim]
        y = attend(q, k, v, mask)
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


def run_block(block, resid, x, x0_share, x0, value_embedding, cos, sin, mask):
    """One block on the residual stream, topped up with the token embedding; apart so that it can be compiled once for all."""
    return block(resid * x + x0_share * x0, value_embedding, cos, sin, mask)


class GPT(nn.Module):
    """`model(idx)` is float32 logits [B, T, V] for idx int64 [B, T], T <= MAX_SEQ_LEN; `train_loss` is how it is trained."""

    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor

    def __init__(self, vocab_size, depth):
        super().__init__()
        every = VALUE_EMBED_EVERY
        has_values = [every > 0 and (depth - 1 - i) % every == 0 for i in range(depth)]
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.value_embeddings = nn.ModuleDict()
        for i in range(depth):
            if has_values[i]:
                table = nn.Embedding(vocab_size, WIDTH)
                nn.init.uniform_(table.weight, -(3**0.5) * INIT_STD, 3**0.5 * INIT_STD)
                self.value_embeddings[str(i)] = table
        self.shift = nn.Parameter(torch.zeros(WIDTH))
        self.blocks = nn.ModuleList([Block(has) for has in has_values])
        self.resid_lambdas = nn.Parameter(torch.ones(depth))
        self.x0_lambdas = nn.Parameter(torch.full((depth,), X0_LAMBDA_INIT))
        self.head = Linear(WIDTH, vocab_size, HEAD_STD)
        nn.init.normal_(self.embedding.weight)

        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN).float(), frequencies).unsqueeze(1)
        self.register_buffer("cos", angles.cos().to(COMPUTE_DTYPE))
        self.register_buffer("sin", angles.sin().to(COMPUTE_DTYPE))
        self.register_buffer("mask", causal_mask(MAX_SEQ_LEN if attend is plain_attention else 0, COMPUTE_DTYPE))

    def trunk(self, idx, run=run_block):
        """All but the head: activations [B, T, WIDTH], already divided by SOFTCAP (they are smaller than the logits)."""
        T = idx.size(1)
        cos, sin, mask = self.cos[:T], self.sin[:T], self.mask[:T, :T]
        resid, x0_share = self.resid_lambdas.to(COMPUTE_DTYPE), self.x0_lambdas.to(COMPUTE_DTYPE)
        x = x0 = norm(with_previous(self.embedding(idx).to(COMPUTE_DTYPE), self.shift))
        for i, block in enumerate(self.blocks):
            name = str(i)
            values = self.value_embeddings[name](idx).to(COMPUTE_DTYPE) if name in self.value_embeddings else None
            x = run(block, resid[i], x, x0_share[i], x0, values, cos, sin, mask)
        return norm(x) / SOFTCAP

    def forward(self, idx):
        return SOFTCAP * torch.tanh(self.head(self.trunk(idx)).float())


# ---------------------------------------------------------------------------------------------------------------------
# Loss: the mean cross-entropy of softcapped logits, from x [tokens, WIDTH] (divided by SOFTCAP), the head's weight [V, WIDTH]
# and targets int64 [tokens]


def plain_cross_entropy(x, weight, targets):
    """As the model's own forward has it: all logits at once, in float32."""
    return F.cross_entropy(SOFTCAP * torch.tanh(F.linear(x, weight.to(x.dtype)).float()), targets)


def softcap_gradient(raw, targets, scale):
    """The summed loss of raw logits [n, V] before the softcap, and `scale` times its gradient in their dtype.

    No maximum is subtracted: a softcapped logit's exponential is at most exp(SOFTCAP).
    """
    squashed = torch.tanh(raw.float())
    exponentials = (SOFTCAP * squashed).exp_()
    totals = exponentials.sum(-1, keepdim=True)
    loss = (totals.log() - SOFTCAP * squashed.gather(1, targets[:, None])).sum()
    gradient = exponentials.mul_(scale * SOFTCAP / totals)
    if torch.compiler.is_compiling():  # a comparison is fused with the rest, a scatter is not
        is_target = torch.arange(raw.size(1), device=raw.device) == targets[:, None]
        gradient = torch.where(is_target, gradient - scale * SOFTCAP, gradient)
    else:
        gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -scale * SOFTCAP))
    return loss, gradient.addcmul_(gradient, squashed.square_(), value=-1).to(raw.dtype)


class SoftcappedCrossEntropy(torch.autograd.Function):
    """`plain_cross_entropy` whose forward pass makes the gradients too, LOSS_CHUNK_TOKENS at a time: no [tokens, V]."""

    @staticmethod
    def forward(ctx, x, weight, targets):
        cast = weight.to(x.dtype)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        loss = torch.zeros((), device=x.device)
        chunks = (t.split(LOSS_CHUNK_TOKENS) for t in (x, targets, grad_x))
        for x_chunk, targets_chunk, grad_x_chunk in zip(*chunks, strict=True):
            chunk_loss, gradient = softcap_gradient(x_chunk @ cast.mT, targets_chunk, 1 / len(x))
            loss += chunk_loss
            torch.mm(gradient, cast, out=grad_x_chunk)
            grad_weight += gradient.mT @ x_chunk
        ctx.save_for_backward(grad_x, grad_weight)
        return loss / len(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad_loss, grad_weight * grad_loss, None


def fused_cross_entropy(x, weight, targets):
    return SoftcappedCrossEntropy.apply(x, weight, targets)


def train_loss(model, idx, targets, run=run_block):
    """The mean loss of idx, targets int64 [B, T]."""
    return cross_entropy(model.trunk(idx, run).flatten(0, 1), model.head.weight, targets.flatten())


def compiled_loss():
    """`train_loss`, compiled; on a CPU block by block, which is as fast and takes 20 s instead of 34."""
    if DEVICE == "cpu":
        return partial(train_loss, run=torch.compile(run_block, dynamic=False))
    return torch.compile(train_loss, dynamic=False)


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
    if x.dtype == torch.float32:  # precise enough to iterate on the small Gram matrix alone: half the arithmetic
        gram, polynomial, product = x @ x.mT, None, None
        for a, b, c in POLAR_EXPRESS[:ORTHOGONAL_STEPS]:
            if polynomial is not None:
                gram = polynomial @ gram @ polynomial
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
            product = polynomial if product is None else polynomial @ product
        return product @ x
    for a, b, c in POLAR_EXPRESS[:ORTHOGONAL_STEPS]:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


def muon_update(params, grads, average, square, neuron_axis, lr, momentum, decay):
    """Move matrices of one shape by their gradients; average and square are their state, the rates numbers or 0-d tensors."""
    weight, grad = torch.stack(params), torch.stack(grads)
    rows, cols = weight.shape[-2:]
    average.lerp_(grad, 1 - momentum)
    update = grad.lerp_(average, momentum)  # Nesterov
    update = orthogonalise(update) if rows <= cols else orthogonalise(update.mT).mT

    # Even out the neurons' step sizes by their running second moment, and keep the norm of the whole update.
    size = update.norm(dim=(-2, -1), keepdim=True)
    square.lerp_(update.square().mean(neuron_axis, keepdim=True), 1 - MUON_BETA2)
    update = update * square.clamp_min(1e-10).rsqrt()
    update *= size / update.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10)

    # Cautious decay: shrink only the weights that the update does not push outwards.
    lr = lr * max(1.0, rows / cols) ** 0.5
    weight -= (lr * decay) * torch.where(update * weight >= 0, weight, 0.0)
    weight -= lr * update
    for param, moved in zip(params, weight, strict=True):
        param.copy_(moved)


class Muon:
    """Momentum whose update is orthogonalised and then normalised per neuron; matrices of one shape move as one stack."""

    def __init__(self, matrices, lr, compiled):
        shapes = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.param_groups = [{"params": params, "lr": lr} for params in shapes.values()]
        for group in self.param_groups:
            weight = torch.stack(group["params"]).detach()
            group["neuron_axis"] = -1 if weight.size(-2) >= weight.size(-1) else -2
            group["average"] = torch.zeros_like(weight)
            group["square"] = torch.zeros_like(weight.mean(group["neuron_axis"], keepdim=True))
        self.number = torch.tensor if compiled else float  # a number that changes would be compiled into the code anew
        self.update = torch.compile(muon_update, dynamic=False) if compiled else muon_update

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            grads = [p.grad for p in group["params"]]
            rates = [self.number(group[name]) for name in ("lr", "momentum", "decay")]
            self.update(group["params"], grads, group["average"], group["square"], group["neuron_axis"], *rates)


class AdamW:
    """AdamW without weight decay, by torch's fused kernel. (`torch.optim` imports the compiler: 1.5 s of start-up.)"""

    def __init__(self, param_groups):
        self.param_groups = param_groups
        for group in param_groups:
            group["averages"] = [torch.zeros_like(p) for p in group["params"]]
            group["squares"] = [torch.zeros_like(p) for p in group["params"]]
            group["steps"] = [torch.zeros((), device=p.device) for p in group["params"]]

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            grads, (beta1, beta2) = [p.grad for p in group["params"]], group["betas"]
            torch._foreach_add_(group["steps"], 1)
            state = group["averages"], group["squares"], [], group["steps"]
            rates = {"lr": group["lr"], "beta1": beta1, "beta2": beta2, "weight_decay": 0.0, "eps": ADAM_EPS}
            torch._fused_adamw_(group["params"], grads, *state, **rates, amsgrad=False, maximize=False)


def make_optimizers(model, compiled):
    """Muon for the matrices inside the blocks, AdamW for embeddings, head and scalars; fresh state."""
    scale = (WIDTH / 768) ** -0.5
    betas = (ADAM_BETA1, ADAM_BETA2)
    embeddings = [model.embedding.weight, *(e.weight for e in model.value_embeddings.values())]
    groups = [
        {"params": embeddings, "lr": EMBEDDING_LR * scale, "betas": betas},
        {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale, "betas": betas},
        {"params": [model.resid_lambdas], "lr": SCALAR_LR * 0.01, "betas": betas},
        {"params": [model.x0_lambdas], "lr": SCALAR_LR, "betas": (0.96, ADAM_BETA2)},
        {"params": [model.shift, *(block.attention.shift for block in model.blocks)], "lr": SHIFT_LR, "betas": betas},
    ]
    optimizers = (
        AdamW(groups),
        Muon([p for p in model.blocks.parameters() if p.ndim == 2], MATRIX_LR, compiled),
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
    """Whether this budget is worth compiling for, and a GPU can. A CPU finds out by compiling the model: a probe takes 6 s."""
    if TIME_BUDGET < COMPILE_FROM_SECONDS:
        return False
    if DEVICE == "cpu":
        return True

    def probe(x):
        return torch.tanh(x).square().sum()

    try:
        torch.compile(probe)(torch.ones(64, 64, device=DEVICE))
    except (RuntimeError, OSError, ImportError) as error:
        print(f"torch.compile does not work here, training eagerly: {type(error).__name__}: {str(error)[:300]}")
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Memory: the rows of a forward pass, then the depth, give way until a whole step fits


def is_out_of_memory(error):
    """Whether a RuntimeError of torch, CUDA or cuBLAS says that there was no memory left."""
    signs = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def sizes_to_try(depth, rows):
    """(depth, rows) from what is wanted down to one row, and then to one block."""
    while rows > 1:
        yield depth, rows
        rows //= 2
    for fewer in range(depth, 0, -1):
        yield fewer, 1


def first_that_fits(sizes, attempt):
    """What `attempt(depth, rows)` returns for the first of `sizes` that does not run out of memory."""
    for depth, rows in sizes:
        try:
            return attempt(depth, rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f"depth {depth} with {rows} rows does not fit: {str(error).splitlines()[0][:200]}")
        torch.compiler.reset()
        gc.collect()  # only here, after the error, is what the attempt had in memory free
        if DEVICE != "cpu":
            torch.cuda.empty_cache()
    sys.exit(f"not even one block and one row of {MAX_SEQ_LEN} tokens fit: make WIDTH or VOCAB_SIZE smaller")


def kept_bytes(model, rows):
    """Bytes that autograd keeps of an eager forward pass over `rows` rows; a compiled one keeps less."""
    storages = {}

    def count(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = train_loss(model, *synthetic_batch(rows, MAX_SEQ_LEN))
    del loss  # with it go the tensors, which kept the addresses apart
    return sum(storages.values())


def require_memory(model, rows):
    """Raise OutOfMemoryError where weights, optimizers and `rows` rows would not fit: a CPU's processes are killed instead."""
    state = STATE_BYTES * sum(p.numel() for p in model.parameters())
    limit = MEMORY_SHARE * MEMORY_BYTES
    row = 0 if state > limit else kept_bytes(model, 2) - kept_bytes(model, 1)
    if state + rows * row > limit:
        need = f"{state / 2**20:.0f} MB of weights and optimizer state and {rows} rows of {row / 2**20:.0f} MB"
        raise torch.OutOfMemoryError(f"{need} are more than {MEMORY_SHARE:.0%} of {MEMORY_BYTES / 2**20:.0f} MB")


def warmed_up(depth, rows):
    """(model, loss function, rows): built, compiled, and stepped on synthetic tokens; then its learning is undone."""
    torch.manual_seed(SEED)
    model = GPT(tokenizer.vocab_size, depth).to(DEVICE)
    require_memory(model, rows)
    initial_weights = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = make_optimizers(model, compiled_whole)
    batch = synthetic_batch(rows, MAX_SEQ_LEN)
    loss_function = compiled_loss() if compiling else train_loss

    def forward_and_backward(function):
        return lambda: function(model, *batch).backward()

    start = time.monotonic()
    if compiling and DEVICE == "cpu":  # where it has little to win, and needs a C++ compiler
        functions = {"eager": train_loss, "compiled": loss_function}
        runs = {name: forward_and_backward(function) for name, function in functions.items()}
        loss_function = functions[fastest("forward and backward", runs, rounds=2)]
    for _ in range(2 if compiled_whole else 1):  # what is compiled settles on its second step
        forward_and_backward(loss_function)()
        optimizer_step(optimizers, step=0, progress=0.0)
    compile_seconds = time.monotonic() - start if compiling else 0.0
    step_seconds = seconds_of(forward_and_backward(loss_function)) * TOTAL_BATCH_TOKENS / batch[0].numel()
    muon_seconds = min(seconds_of(optimizers[1].step) for _ in range(2))
    step_seconds += seconds_of(lambda: optimizer_step(optimizers, step=0, progress=0.0))
    parameters = sum(p.numel() for p in model.parameters())
    report(0, parameters=parameters, compile_seconds=compile_seconds, step_seconds=step_seconds, muon_seconds=muon_seconds)
    print(f"a step takes {1e3 * step_seconds:.0f} ms, {muon_seconds / step_seconds:.0%} of it Muon")
    with torch.inference_mode():  # as the scorer will, while the optimizers' state is in memory too
        F.log_softmax(model(batch[0][:EVAL_BATCH_ROWS]), dim=-1)
    model.load_state_dict(initial_weights)
    model.zero_grad()
    return model, loss_function, rows


# ---------------------------------------------------------------------------------------------------------------------
# Everything before the clock: choose, build, compile, warm up on synthetic tokens, rehearse the hand-off

tokenizer = Tokenizer.load(VOCAB_SIZE)
micro_tokens = DEVICE_BATCH_ROWS * MAX_SEQ_LEN
if TOTAL_BATCH_TOKENS % micro_tokens:
    sys.exit(f"TOTAL_BATCH_TOKENS {TOTAL_BATCH_TOKENS} is no multiple of {DEVICE_BATCH_ROWS} rows of {MAX_SEQ_LEN} tokens")

settings = ExitStack()  # of torch, in force to the end
if DEVICE != "cpu":
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 for what is left in float32
compiling = can_compile()
compiled_whole = compiling and DEVICE != "cpu"
COMPUTE_DTYPE = choose_dtype()  # activations; parameters are always float32
attend = choose_attention()
if compiled_whole:
    softcap_gradient = torch.compile(softcap_gradient, dynamic=False)
    # Else the chunks would be unrolled; the trunk before them is compiled all the same.
    fused_cross_entropy = torch.compiler.disable(fused_cross_entropy)
cross_entropy = choose_loss(tokenizer.vocab_size, compiled_whole)

model, loss_function, rows = first_that_fits(sizes_to_try(DEPTH, DEVICE_BATCH_ROWS), warmed_up)
optimizers = make_optimizers(model, compiled_whole)
rehearse(model)
gc.collect()
gc.freeze()
gc.disable()  # a collection costs more than the few cycles it would find

micro_steps = TOTAL_BATCH_TOKENS // (rows * MAX_SEQ_LEN)
parameters = sum(p.numel() for p in model.parameters())
how = "eager" if loss_function is train_loss else "compiled"
print(f"{parameters / 1e6:.2f}M parameters, depth {len(model.blocks)}, {how}, {COMPUTE_DTYPE}")
print(f"{micro_steps} x {rows} rows of {MAX_SEQ_LEN} tokens per step, for {MEMORY_BYTES / 2**30:.1f} GB of memory")

# ---------------------------------------------------------------------------------------------------------------------
# Training


class Pending:
    """A step's loss on its way from the device: `value()` waits for that step, and for none that was queued after it."""

    def __init__(self, loss):
        self.loss = torch.empty((), pin_memory=DEVICE != "cpu").copy_(loss, non_blocking=True)
        self.done = torch.get_device_module(DEVICE).Event()
        self.done.record()

    def value(self):
        self.done.synchronize()
        return self.loss.item()


batches = make_dataloader(tokenizer, rows, MAX_SEQ_LEN, "train")
inputs, targets, epoch = next(batches)
total_seconds = left = seconds_left()
recent_step_seconds = deque([0.0], maxlen=8)
queue = deque()
step, loss_value = 0, math.nan
while left > 1.1 * max(recent_step_seconds) * (1 + len(queue)):  # the steps in the queue need their time too
    loss_sum = torch.zeros((), device=DEVICE)
    for _ in range(micro_steps):
        loss = loss_function(model, inputs, targets)
        (loss / micro_steps).backward()
        loss_sum += loss.detach()
        inputs, targets, epoch = next(batches)  # on a GPU this overlaps the backward pass
    optimizer_step(optimizers, step, progress=1 - left / total_seconds)
    step += 1
    queue.append(Pending(loss_sum / micro_steps))
    if len(queue) > QUEUED_STEPS:
        loss_value = queue.popleft().value()
        if not math.isfinite(loss_value):
            sys.exit(f"the training loss became {loss_value} by step {step}: lower a learning rate or undo the last change")
        report(step, loss=loss_value, tokens=step * TOTAL_BATCH_TOKENS, epoch=epoch)
    before, left = left, seconds_left()
    recent_step_seconds.append(before - left)

loss_value = queue.pop().value() if queue else loss_value
print(f"{step} steps, {step * TOTAL_BATCH_TOKENS / 1e6:.2f}M tokens, last training loss {loss_value:.4f}")
evaluate_bpb(model, tokenizer, min(rows, EVAL_BATCH_ROWS))
