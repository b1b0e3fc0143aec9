"""Handing a model over: what works in a fresh process is accepted, what does not is named by the rehearsal in seconds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2]

HEADER = """
import sys
sys.path.insert(0, {package!r})
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from prepare import MAX_SEQ_LEN, rehearse

class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(300, 8)
        self.head = torch.nn.Linear(8, 300)
    def body(self, idx):
        return self.embedding(idx)
    def forward(self, idx):
        return self.head(self.body(idx))
"""

MODELS = {
    "plain": ("class Model(Base): pass", ""),
    "torch.ops": ("class Model(Base):\n    def body(self, idx): return torch.ops.aten.relu(self.embedding(idx))", ""),
    "torch.backends": (
        "class Model(Base):\n    def body(self, idx):\n"
        "        return self.embedding(idx) * (1 if torch.backends.mkldnn.is_available() else 2)",
        "",
    ),
    "sdpa_kernel": (
        "class Model(Base):\n    def body(self, idx):\n        x = self.embedding(idx)[:, None]\n"
        "        with sdpa_kernel(SDPBackend.MATH):\n"
        "            return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 0]",
        "",
    ),
    "compiled model": ("class Model(Base): pass\nwrap = torch.compile", ""),
    "custom op": (
        "@torch.library.custom_op('lab::double', mutates_args=())\ndef double(x: torch.Tensor) -> torch.Tensor:\n"
        "    return x * 2\nclass Model(Base):\n    def body(self, idx): return torch.ops.lab.double(self.embedding(idx))",
        "double",
    ),
    "a lock": (
        "import threading\nclass Model(Base):\n    def __init__(self):\n        super().__init__()\n"
        "        self.guard = threading.Lock()",
        "model.guard",
    ),
    "a global lock": (
        "import threading\nGUARD = threading.Lock()\nclass Model(Base):\n    def body(self, idx):\n"
        "        with GUARD: return self.embedding(idx)",
        "'GUARD'",
    ),
    "wrong shape": ("class Model(Base):\n    def forward(self, idx): return self.embedding(idx)[:, :1]", "shape"),
}


def rehearse(tmp_path: Path, model: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "train.py"
    source = HEADER.format(package=str(PACKAGE)) + model + "\nwrap = globals().get('wrap', lambda m: m)\n"
    script.write_text(source + "rehearse(wrap(Model()))\nprint('handed over')\n")
    ours, theirs = socket.socketpair()
    settings = {
        "profile": "cpu",
        "device": "cpu",
        "context_length": 16,
        "budget_seconds": 10.0,
        "seed": 1,
        "channel_fd": theirs.fileno(),
        "memory_bytes": 1 << 32,
        "scratch": str(tmp_path),
    }
    with ours, theirs:
        return subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "AUTORESEARCH_SETTINGS": json.dumps(settings)},
            pass_fds=(theirs.fileno(),),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_rehearsal_accepts_what_can_be_scored_and_names_what_cannot(tmp_path: Path, name: str) -> None:
    source, expected = MODELS[name]
    done = rehearse(tmp_path, source)
    if not expected:
        assert done.returncode == 0, done.stderr
        assert "handed over" in done.stdout
    else:
        assert done.returncode != 0
        assert done.stderr.startswith("rehearse:")
        assert expected in done.stderr


@pytest.mark.slow
def test_a_compiled_function_in_the_forward_is_named_or_works(tmp_path: Path) -> None:
    model = (
        "@torch.compile\ndef fast(x):\n    return x * 2\n"
        "class Model(Base):\n    def body(self, idx): return fast(self.embedding(idx))"
    )
    done = rehearse(tmp_path, model)
    assert done.returncode == 0 or "fast" in done.stderr, done.stderr
