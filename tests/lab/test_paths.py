"""Where the state lies: outside of every lab, and where torch.compile can work."""

from __future__ import annotations

from pathlib import Path

from autoresearch_mcp.lab.paths import default_state_folder


def test_the_state_folder_has_no_space_in_its_path() -> None:
    home = Path("/Users/me")
    assert default_state_folder(home / "Library/Application Support/autoresearch", home) == home / ".local/state/autoresearch"
    linux = Path("/home/me/.local/state/autoresearch")
    assert default_state_folder(linux, Path("/home/me")) == linux
