"""Which lab a repository is: one folder under two names is one lab, a copy is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.lab import Lab


def reopened(folder: Path) -> str:
    lab = Lab.open(folder)
    lab.close()
    return lab.id


def test_one_folder_under_a_second_name_is_the_same_lab(lab: Lab) -> None:
    """As a path in other letters on a case-insensitive disk, or a link that was left where a lab was moved from."""
    elsewhere = lab.root.with_name("moved")
    lab.root.rename(elsewhere)
    lab.root.symlink_to(elsewhere)
    assert reopened(elsewhere) == lab.id
    assert reopened(lab.root) == lab.id


def test_a_copy_beside_the_original_is_refused(lab: Lab) -> None:
    copy = lab.root.with_name("copy")
    shutil.copytree(lab.root, copy)
    with pytest.raises(NotReadyError, match="--new-identity"):
        Lab.open(copy)
