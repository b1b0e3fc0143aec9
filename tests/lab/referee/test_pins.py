"""A pinned file that was changed, removed or added is named; one that was only touched, or put back, holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab.referee.pins import (
    Kind,
    PinCheck,
    PinnedFile,
    PinnedTree,
    Pins,
    check,
    content_sha256,
    load_pins,
    mismatches,
    save_pins,
    signature_of,
    walk,
)

SOURCES = {
    "nn/layers.py": "layer = 1\n",
    "nn/__pycache__/layers.cpython-311.pyc": "compiled",
    "lib/libtorch.so": "machine code",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "torch"
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


Pin = Callable[..., str]


@pytest.fixture
def pin(package: Path, tmp_path: Path) -> Pin:
    """Return a function that pins the package as it is and returns the path of the pins."""

    def make(*, kind: Kind = Kind.ENVIRONMENT, leave_out: str = "") -> str:
        files = {
            name: PinnedFile(sha256=content_sha256(f"{package}/{name}"), signature=signature_of(status))
            for name, status in walk(package, kind).items()
            if not leave_out or not name.endswith(leave_out)
        }
        tree = PinnedTree(kind=kind, root=str(package), remedy="reinstall torch", files=files)
        return str(save_pins(Pins(trees=(tree,)), tmp_path / "pins"))

    return make


def test_what_was_only_touched_copied_or_written_again_as_it_was_holds(package: Path, pin: Pin) -> None:
    pins = pin()
    assert check(pins) is None
    layers = package / "nn" / "layers.py"
    layers.touch()
    (package / "lib" / "libtorch.so").chmod(0o600)
    copy = package / "copy"
    copy.write_bytes(layers.read_bytes())
    copy.rename(layers)
    assert check(pins) is None
    assert list(mismatches(pins, read_everything=True)) == []


def test_changed_bytes_are_found_and_the_sentence_names_the_file_and_the_next_step(package: Path, pin: Pin) -> None:
    pins = pin()
    (package / "nn" / "layers.py").write_text("layer = 2\n")
    said = check(pins)
    assert said == f"{package}/nn/layers.py (environment) is not the file that was pinned; reinstall torch"


def test_changed_bytes_of_the_same_size_are_found_with_their_mtime_set_back(package: Path, pin: Pin) -> None:
    layers = package / "nn" / "layers.py"
    before, pins = layers.stat(), pin()
    layers.write_text("layer = 2\n")
    os.utime(layers, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = layers.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert "layers.py" in (check(pins) or "")


def test_a_link_to_other_bytes_in_its_place_is_found(package: Path, pin: Pin) -> None:
    pins, layers = pin(), package / "nn" / "layers.py"
    (package.parent / "other.py").write_text("layer = 2\n")
    layers.unlink()
    layers.symlink_to(package.parent / "other.py")
    assert "layers.py" in (check(pins) or "")


@pytest.mark.parametrize("missing", ["nn/layers.py", "lib/libtorch.so"])
def test_a_missing_file_is_found(package: Path, pin: Pin, missing: str) -> None:
    pins = pin()
    (package / missing).unlink()
    assert f"{missing} (environment) is gone" in (check(pins) or "")


def test_the_check_of_a_run_goes_on_in_parts_and_says_nothing_before_it_is_complete(package: Path, pin: Pin) -> None:
    parts = PinCheck(pin())
    assert (parts.is_complete, parts.before) == (False, None)
    parts.advance(0.0)
    assert not parts.is_complete
    assert parts.finish() is None
    assert parts.is_complete
    assert parts.after(since_ns=time.time_ns()) is None

    (package / "nn" / "layers.py").write_text("layer = 2\n")
    assert "was written to while the run used it" in (parts.after(since_ns=0) or "")
    changed_before = PinCheck(parts_path := pin())
    (package / "nn" / "layers.py").write_text("layer = 3\n")
    assert "layers.py (environment) is not the file that was pinned" in (changed_before.finish() or "")
    Path(parts_path).write_bytes(b"{}")
    assert "missing or were changed" in (PinCheck(parts_path).finish() or "")
    assert changed_before.after(since_ns=0) is not None  # by what was read before


def test_a_missing_folder_names_each_of_its_files(package: Path, pin: Pin) -> None:
    pins = pin()
    package.rename(package.with_name("elsewhere"))
    assert sum("is gone" in said for said in mismatches(pins)) == 2  # the bytecode is made again


@pytest.mark.parametrize("name", ["nn/layers.cpython-311-x86_64-linux-gnu.so", "nn/layers/__init__.py", "include/notes.h"])
def test_what_was_put_beside_pinned_files_is_found(package: Path, pin: Pin, name: str) -> None:
    pins = pin()
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("import os\n")
    assert f"{name} (environment) was added" in (check(pins) or "")


def test_bytecode_may_not_change_nor_appear_in_a_package_that_was_compiled(package: Path, pin: Pin) -> None:
    pins, compiled = pin(), package / "nn" / "__pycache__" / "layers.cpython-311.pyc"
    (package / "nn" / "__pycache__" / "layers.cpython-311.opt-1.pyc").write_text("planted")
    assert "was added" in (check(pins) or "")
    compiled.write_text("planted")
    assert "layers.cpython-311.pyc (environment) is not the file" in (check(pins) or "")


def test_bytecode_may_appear_where_a_package_was_installed_without(package: Path, pin: Pin) -> None:
    (package / "nn" / "__pycache__" / "layers.cpython-311.pyc").unlink()
    pins = pin()
    (package / "nn" / "__pycache__" / "layers.cpython-311.pyc").write_text("compiled")
    assert check(pins) is None


def test_a_file_without_a_signature_is_always_read(package: Path, tmp_path: Path) -> None:
    layers = package / "nn" / "layers.py"
    pinned = PinnedFile(sha256=content_sha256(str(layers)), signature=None)
    tree = PinnedTree(kind=Kind.CORPUS, root=str(layers), remedy="", files={"": pinned})
    pins = str(save_pins(Pins(trees=(tree,)), tmp_path / "pins"))
    assert check(pins) is None
    layers.write_text("layer = 2\n")
    assert "layers.py (corpus)" in (check(pins) or "")


def test_what_was_written_during_a_run_does_not_hold_although_it_was_put_back(package: Path, pin: Pin) -> None:
    pins, layers = pin(), package / "nn" / "layers.py"
    (package.parent / "now").touch()
    began = (package.parent / "now").stat().st_ctime_ns  # the clock of the file system is coarser than that of the process
    assert check(pins, since_ns=began) is None
    layers.write_text("layer = 2\n")
    layers.write_text("layer = 1\n")
    assert check(pins) is None
    assert "was written to while the run used it" in (check(pins, since_ns=began) or "")


def test_pins_that_were_edited_or_deleted_hold_for_nothing(pin: Pin) -> None:
    path = Path(pin())
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    path.write_bytes(content.replace(b"layers.py", b"layerz.py"))
    assert load_pins(path) is None
    assert "autoresearch init" in (check(str(path)) or "")
    path.write_bytes(content)
    assert check(str(path)) is None
    path.unlink()
    assert "missing" in (check(str(path)) or "")


def test_every_file_of_the_harness_counts_and_new_token_stores_of_a_corpus_do_not(package: Path, pin: Pin) -> None:
    harness, corpus = pin(kind=Kind.HARNESS), pin(kind=Kind.CORPUS)
    (package / "train-512.bin").write_text("tokens")
    assert "train-512.bin (harness) was added" in (check(harness) or "")
    assert check(corpus) is None


def test_of_a_package_folder_only_what_python_starts_with_counts(package: Path, pin: Pin) -> None:
    pins = pin(kind=Kind.HOOKS)
    (package / "another.py").write_text("")
    assert check(pins) is None
    (package / "start.pth").write_text("import planted\n")
    assert "start.pth (hooks) was added" in (check(pins) or "")
