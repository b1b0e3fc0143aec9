"""What kind of machine this is: told from names, so that every kind can be looked at here."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoresearch_mcp.server.host import Host, describe_host, foreign_file_system, this_host, wsl_version


def host(system: str = "Linux", release: str = "6.8.0", *, version: str = "", has: str = "", is_root: bool = False) -> Host:
    return describe_host(
        system=system,
        release=release,
        version=version or release,
        processor="x86_64",
        which=lambda name: f"/usr/bin/{name}" if name in has.split() else None,
        is_root=is_root,
    )


@pytest.mark.parametrize(
    ("system", "release", "expected"),
    [
        ("Linux", "4.4.0-19041-Microsoft", 1),
        ("Linux", "5.15.167.4-microsoft-standard-WSL2", 2),
        ("Linux", "6.6.36.3-microsoft-standard-WSL2+", 2),
        ("Linux", "6.8.0-45-generic", None),
        ("Darwin", "24.1.0", None),
    ],
)
def test_wsl_is_told_by_the_kernels_release(system: str, release: str, expected: int | None) -> None:
    assert wsl_version(system, release) == expected
    assert host(system, release).wsl == expected


def test_the_name_says_what_people_call_the_system() -> None:
    assert host("Darwin", "24.1.0", version="15.1").name == "macOS 15.1 x86_64"
    assert host("Linux", "5.15-microsoft-standard-WSL2").name == "WSL 2 (Linux 5.15-microsoft-standard-WSL2 x86_64)"
    assert this_host().name


def test_advice_is_one_command_of_the_package_manager_that_is_here() -> None:
    assert host(has="apt-get").install("C++ compiler") == "sudo apt-get install -y g++"
    assert host(has="apt-get", is_root=True).install("git") == "apt-get install -y git"
    assert host(has="dnf").install("C++ compiler") == "sudo dnf install -y gcc-c++"
    assert host(has="apk", is_root=True).install("git") == "apk add git"
    assert host("Darwin", has="brew apt-get").install("C++ compiler") == "xcode-select --install"
    assert "g++" in host().install("C++ compiler")
    assert host(has="zypper").install("libseccomp", "bubblewrap") == "sudo zypper install -y libseccomp2 bubblewrap"
    assert host().install("libseccomp", "bubblewrap") == "install libseccomp and bubblewrap"


def test_a_network_file_system_is_found_by_the_nearest_mount() -> None:
    mounts = {"/": "ext4", "/home": "nfs4", "/home/me/scratch": "xfs", "/mnt/c": "9p"}
    assert foreign_file_system(Path("/home/me/state"), mounts) == "nfs4"
    assert foreign_file_system(Path("/home/me/scratch/state"), mounts) is None
    assert foreign_file_system(Path("/mnt/c/Users/me"), mounts) == "9p"
    assert foreign_file_system(Path("/var/lib"), mounts) is None
    assert foreign_file_system(Path("/nowhere"), {}) is None
