"""The tokens file: private from its first moment, without a token in it, and always as it is now."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest
from autoresearch_mcp.lab.errors import NotReadyError, UnknownNameError
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.server.tokens import PREFIX, TokenFile, make_token, read_tokens, revoke_token
from typer.testing import CliRunner, Result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def test_a_token_has_256_bits_and_the_file_holds_only_its_hash_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        tokens = [make_token(path, name) for name in ("ann", "ben")]
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(len(base64.urlsafe_b64decode(token.removeprefix(PREFIX) + "=")) == 32 for token in tokens)
    text = path.read_text()
    assert not [token for token in tokens if token in text or token.removeprefix(PREFIX) in text]
    kept = read_tokens(path)
    assert kept is not None
    assert [one.researcher for one in kept] == ["ann", "ben"]
    assert [one.sha256 for one in kept] == [hashlib.sha256(token.encode()).hexdigest() for token in tokens]


def test_one_token_for_each_researcher_until_it_is_revoked(path: Path) -> None:
    first = make_token(path, "ann")
    with pytest.raises(NotReadyError, match="--revoke ann"):
        make_token(path, "ann")
    with pytest.raises(UnknownNameError, match="ann"):
        revoke_token(path, "ben")
    assert revoke_token(path, "ann") == ()
    assert read_tokens(path) == ()
    assert make_token(path, "ann") != first


@pytest.mark.parametrize("name", ["", " ann", "ann ", "a b", "../x", "-x", "ä", "a\n", "x" * 65])
def test_a_name_that_could_be_mistaken_is_refused(path: Path, name: str) -> None:
    with pytest.raises(NotReadyError, match="cannot be the name"):
        make_token(path, name)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_file_that_others_can_read_or_write_is_refused_with_what_mends_it(path: Path, mode: int) -> None:
    make_token(path, "ann")
    path.chmod(mode)
    for use in (read_tokens, lambda path: make_token(path, "ben"), lambda path: TokenFile(lambda: path).required()):
        with pytest.raises(NotReadyError, match=f"chmod 600 {path}"):
            use(path)


def test_a_link_a_pipe_a_folder_and_a_damaged_file_are_refused(path: Path, tmp_path: Path) -> None:
    make_token(tmp_path / "other.json", "ann")
    path.symlink_to(tmp_path / "other.json")
    with pytest.raises(NotReadyError, match="symbolic link"):
        read_tokens(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(NotReadyError, match="not a regular file"):
        read_tokens(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(NotReadyError, match="not a regular file"):
        read_tokens(path)
    path.rmdir()
    for text in ("", "{}", "[]", '{"tokens": [{"researcher": "ann", "sha256": "x", "made_at": 0}]}', '{"tokens": 1}', "\xff"):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(NotReadyError, match="damaged"):
            read_tokens(path)


def test_a_server_that_runs_sees_what_is_made_and_revoked_and_never_stops_asking(path: Path) -> None:
    places: list[Path] = []
    tokens = TokenFile(lambda: places[0] if places else None)
    assert not tokens.required()  # of a lab that was never opened
    places.append(path)
    assert not tokens.required()
    ann = make_token(path, "ann").encode()
    assert tokens.required()
    ben = make_token(path, "ben").encode()
    assert [tokens.researcher_of(token) for token in (ann, ben)] == ["ann", "ben"]
    wrong = (b"", ann[:-1], ann + b"x", ann.upper(), PREFIX.encode(), b"\xff" * 4096, hashlib.sha256(ann).hexdigest().encode())
    assert [tokens.researcher_of(token) for token in wrong] == [None] * len(wrong)
    revoke_token(path, "ann")
    assert [tokens.researcher_of(token) for token in (ann, ben)] == [None, "ben"]
    path.chmod(0o644)
    with pytest.raises(NotReadyError, match="chmod"):
        tokens.researcher_of(ben)
    path.chmod(0o600)
    assert tokens.researcher_of(ben) == "ben"
    path.unlink()
    assert tokens.required()
    assert tokens.researcher_of(ben) is None


def test_the_command_prints_a_token_once_and_says_how_it_is_used_and_ended(lab: Lab) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["token", *arguments, "--lab", str(lab.root)])

    made = run("claude-2")
    (token,) = made.stdout.split()
    assert TokenFile(lambda: lab.state.tokens).researcher_of(token.encode()) == "claude-2"
    assert "Authorization: Bearer TOKEN" in made.stderr
    assert token not in made.stderr + run("--list").output
    assert "claude-2" in run("--list").stdout
    assert run("claude-2").exit_code == 1
    assert (run().exit_code, run("a", "--list").exit_code) == (2, 2)
    revoked = run("--revoke", "claude-2")
    assert revoked.exit_code == 0
    assert str(lab.state.tokens) in revoked.stderr.replace("\n", " ")
    assert read_tokens(lab.state.tokens) == ()


def test_serve_refuses_what_is_no_allowed_host_and_one_without_http(lab: Lab) -> None:
    for arguments in (["--http", "0.0.0.0:0", "--allowed-host", "*"], ["--allowed-host", "gpu-box"]):
        refused = CliRunner().invoke(app, ["serve", "--lab", str(lab.root), *arguments])
        assert refused.exit_code == 2
        assert "--allowed-host" in refused.output
