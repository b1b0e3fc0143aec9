"""The fused loss: the numbers of the plain formula, without the logits of all tokens at once."""

from __future__ import annotations

import os
import shutil
from types import ModuleType

import pytest
import torch
from torch import Tensor

from .loading import load

os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")  # torch.compile imports both, in either order
pytestmark = pytest.mark.filterwarnings("ignore")  # of setuptools and distutils, which torch.compile imports

TOKENS, WIDTH, VOCABULARY = 192, 32, 320


@pytest.fixture
def train() -> ModuleType:
    return load(LOSS_CHUNK_TOKENS="80")  # which leaves a last chunk of 32


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Activations, a head so large that the softcap bends its logits, and targets."""
    torch.manual_seed(0)
    x, weight = torch.randn(TOKENS, WIDTH), torch.randn(VOCABULARY, WIDTH) / 4
    return x.to(dtype).requires_grad_(), weight.requires_grad_(), torch.randint(VOCABULARY, (TOKENS,))


def exact(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float64."""
    x, weight = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    logits = 15 * torch.tanh(x @ weight.mT)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    return loss, *torch.autograd.grad(loss, (x, weight))


def error(got: Tensor, true: Tensor) -> float:
    return ((got.double() - true).norm() / true.norm()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_loss_and_gradients_are_those_of_the_formula(train: ModuleType, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, targets = drawn(dtype)
    loss = train.fused_cross_entropy(x, weight, targets)
    grads = torch.autograd.grad(loss, (x, weight))
    assert loss.dtype == torch.float32
    assert [grad.dtype for grad in grads] == [dtype, torch.float32]
    for got, true in zip((loss, *grads), exact(x, weight, targets), strict=True):
        assert error(got, true) < tolerance


def test_in_bfloat16_it_is_as_close_to_the_truth_as_the_plain_loss(train: ModuleType) -> None:
    x, weight, targets = drawn(torch.bfloat16)
    truth = exact(x, weight, targets)[1:]
    plain = torch.autograd.grad(train.plain_cross_entropy(x, weight, targets), (x, weight))
    fused = torch.autograd.grad(train.fused_cross_entropy(x, weight, targets), (x, weight))
    for of_plain, of_fused, true in zip(plain, fused, truth, strict=True):
        assert error(of_fused, true) < 1.5 * error(of_plain, true)


def test_a_certain_and_a_hopeless_prediction_stay_finite(train: ModuleType) -> None:
    x = torch.full((2, WIDTH), 10.0, requires_grad=True)
    weight = torch.full((VOCABULARY, WIDTH), -1.0)
    weight[0] = 1.0
    targets = torch.tensor([0, 1])
    loss = train.fused_cross_entropy(x, weight.requires_grad_(), targets)
    loss.backward()
    assert loss.item() == pytest.approx(15.0, rel=1e-4)  # the mean of 0 and twice the cap
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_gradient_of_an_accumulated_share_is_scaled(train: ModuleType) -> None:
    x, weight, targets = drawn(torch.float32)
    (train.fused_cross_entropy(x, weight, targets) / 4).backward()
    assert x.grad is not None
    assert error(x.grad, exact(x, weight, targets)[1] / 4) < 1e-6


def test_it_keeps_the_gradients_and_nothing_that_has_a_value_for_every_token_and_word(train: ModuleType) -> None:
    x, weight, targets = drawn(torch.float32)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        train.fused_cross_entropy(x, weight, targets)
    assert kept == [x.shape, weight.shape]


def test_both_losses_train_a_model_alike(train: ModuleType) -> None:
    losses = []
    for name in ("plain_cross_entropy", "fused_cross_entropy"):
        train.cross_entropy = getattr(train, name)
        torch.manual_seed(0)
        model = train.GPT(VOCABULARY, 2)
        optimizers = train.make_optimizers(model, compiled=False)
        batch = torch.randint(VOCABULARY, (2, 4, 32)).unbind()
        for step in range(4):
            loss = train.train_loss(model, *batch)
            loss.backward()
            train.optimizer_step(optimizers, step, progress=0.05)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.01)  # AdamW's first steps enlarge any difference
    assert losses[0] < 5.0  # from log(320) = 5.77


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_trunk_before_it_gives_the_same_gradients(train: ModuleType) -> None:
    train.cross_entropy = torch.compiler.disable(train.fused_cross_entropy)  # as train.py does where it compiles
    model = train.GPT(VOCABULARY, 1)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    batch = torch.randint(VOCABULARY, (2, 4, 32)).unbind()
    train.train_loss(model, *batch).backward()
    eager = [p.grad for p in model.parameters()]
    model.zero_grad()
    torch.compiler.reset()
    compiled = torch.compile(train.train_loss, dynamic=False)
    compiled(model, *batch).backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for got, true in zip(model.parameters(), eager, strict=True):
        torch.testing.assert_close(got.grad, true, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_chunks_compiled_as_on_a_gpu_give_the_same(train: ModuleType, dtype: torch.dtype) -> None:
    x, weight, targets = drawn(dtype)
    eager = torch.autograd.grad(train.fused_cross_entropy(x, weight, targets), (x, weight))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    train.softcap_gradient = torch.compile(train.softcap_gradient, dynamic=False)
    compiled = torch.autograd.grad(train.fused_cross_entropy(x, weight, targets), (x, weight))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the whole chunks, and the last
    for got, true in zip(compiled, eager, strict=True):
        assert error(got, true.double()) < (1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_optimizer_compiled_as_on_a_gpu_moves_alike_and_is_compiled_once_for_all_rates(train: ModuleType) -> None:
    moved = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = train.GPT(VOCABULARY, 1)
        optimizers = train.make_optimizers(model, compiled)
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        for step in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            train.optimizer_step(optimizers, step, progress=0.05 + step / 10)
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        moved.append([p.detach() for p in model.parameters()])
        shapes = {p.shape for p in model.blocks.parameters() if p.ndim == 2}
        assert graphs == (len(shapes) if compiled else 0)
    for eager, other in zip(*moved, strict=True):
        torch.testing.assert_close(eager, other, rtol=1e-3, atol=1e-5)
