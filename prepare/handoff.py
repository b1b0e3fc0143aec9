"""Serialising a model together with its classes, and saying what stands in the way when that fails.

The file is a pickle: it may be opened only inside a scoring process that is treated as the candidate's own.
"""

from __future__ import annotations

import importlib
import io
import sys
import types
from pathlib import Path
from typing import IO, Any

import cloudpickle
import torch


class _ModelPickler(cloudpickle.Pickler):
    """cloudpickle, and by reference what it would take apart although the fresh process can import it.

    torch makes some of its modules and enums by hand: `torch.ops`, `torch.backends.*`, `SDPBackend`.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.ModuleType) and sys.modules.get(obj.__name__) is obj and obj.__name__ != "__main__":
            return importlib.import_module, (obj.__name__,)
        if isinstance(obj, type) and obj.__module__ != "__main__":
            module = sys.modules.get(obj.__module__)
            if module is not None and obj.__qualname__ != obj.__name__ and getattr(module, obj.__name__, None) is obj:
                return getattr, (module, obj.__name__)
        return super().reducer_override(obj)


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _ModelPickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def uncompiled(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module behind ``torch.compile``, or ``model`` itself."""
    return getattr(model, "_orig_mod", model)


def save_model(model: torch.nn.Module, path: Path) -> None:
    """Write the uncompiled module in evaluation mode to ``path``; classes of train.py travel by value."""
    module = uncompiled(model)
    training = {part: part.training for part in module.modules()}
    module.eval()
    module.zero_grad(set_to_none=True)
    try:
        path.write_bytes(_dumps(module))
    finally:
        for part, mode in training.items():
            part.training = mode


def load_model(file: IO[bytes], device: str) -> torch.nn.Module:
    """Load what `save_model` wrote, from a file: never all of its bytes at once. Runs the candidate's code: call it only in
    a scoring process."""
    model = cloudpickle.load(file)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"the candidate handed over a {type(model).__name__}, not a torch.nn.Module")
    return model.to(device).eval()


def try_model(path: Path, length: int, device: str) -> torch.nn.Module:
    """Load a saved model and run it once on random tokens, int64 [1, length]; raises what the scorer would meet."""
    with path.open("rb") as file:
        model = load_model(file, device)
    inputs = torch.randint(256, (1, length), device=device)
    with torch.inference_mode():
        logits = model(inputs)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 3 or tuple(logits.shape[:2]) != (1, length):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"model(idx) must return logits of shape (1, {length}, vocabulary); it returned {got}")
    return model


def describe_unserialisable(model: torch.nn.Module, error: Exception) -> str:
    """Return a sentence that names the attribute or global which cannot be serialised, and the original error."""
    for name, value in _reachable(model):
        try:
            _dumps(value)
        except Exception as inner:  # noqa: BLE001 - pickling foreign objects may raise anything
            return f"{name} is a {type(value).__name__}, which cannot be serialised ({type(inner).__name__}: {inner})"
    return f"{type(error).__name__}: {error}"


def _reachable(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """The attributes of every submodule and the globals that their methods use, the most specific first."""
    found: list[tuple[str, Any]] = []
    for path, module in model.named_modules():
        owner = f"model.{path}" if path else "model"
        internal = ("_parameters", "_buffers", "_modules")
        found += [(f"{owner}.{key}", value) for key, value in vars(module).items() if key not in internal]
        for cls in type(module).__mro__:
            if cls.__module__ != "__main__":
                continue
            for method_name, method in vars(cls).items():
                if isinstance(method, types.FunctionType):
                    found += [
                        (f"the global {name!r} used by {cls.__name__}.{method_name}", method.__globals__[name])
                        for name in method.__code__.co_names
                        if name in method.__globals__ and not isinstance(method.__globals__[name], type)
                    ]
    return found
