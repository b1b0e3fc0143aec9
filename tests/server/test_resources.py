"""The resources, through the real client in both protocol eras: listed without a lab, as small as the tools, clear errors."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.tools.read_program import read_program
from autoresearch_mcp.tools.show_experiment import show_experiment
from mcp import Client, MCPError
from mcp.types import BlobResourceContents, TextResourceContents

from .connected import connected, in_both_eras
from .test_snapshots import surface

MakeLab = Callable[..., Lab]

TEXTS = {
    "autoresearch://program": "text/markdown",
    "autoresearch://train.py": "text/x-python",
    "autoresearch://experiments/e0001": "text/plain",
    "autoresearch://experiments/e0001/diff": "text/x-diff",
    "autoresearch://experiments/e0001/log": "text/plain",
}


@pytest.fixture
def researched(make_quick_lab: MakeLab) -> Lab:
    lab = make_quick_lab()
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    wait(lab, baseline.id, 20.0)
    return lab


def read(lab: Lab, *uris: str, era: str = "auto") -> list[TextResourceContents | BlobResourceContents]:
    async def use(client: Client) -> list[TextResourceContents | BlobResourceContents]:
        return [(await client.read_resource(uri)).contents[0] for uri in uris]

    return connected(lab.root, use, era=era)


def text(lab: Lab, uri: str) -> str:
    (content,) = read(lab, uri)
    assert isinstance(content, TextResourceContents)
    return content.text


@in_both_eras
def test_resources_are_listed_with_all_that_a_person_chooses_by(era: str) -> None:
    listed = surface(era)["resources"]
    assert [each["uri"] for each in listed["resources"]] == [
        "autoresearch://program",
        "autoresearch://train.py",
        "autoresearch://progress.png",
    ]
    assert [each["uriTemplate"] for each in listed["resourceTemplates"]] == [
        "autoresearch://experiments/{id}",
        "autoresearch://experiments/{id}/diff",
        "autoresearch://experiments/{id}/log",
    ]
    for each in [*listed["resources"], *listed["resourceTemplates"]]:
        assert each["title"]
        assert each["description"]
        assert each["mimeType"]


@in_both_eras
def test_every_resource_is_read_with_the_type_that_was_listed(researched: Lab, era: str) -> None:
    found = read(researched, *TEXTS, "autoresearch://progress.png", era=era)
    assert [content.mime_type for content in found] == [*TEXTS.values(), "image/png"]
    for content in found[:-1]:
        assert isinstance(content, TextResourceContents)
        assert content.text
        assert len(content.text.encode()) < 10_000
    assert isinstance(found[-1], BlobResourceContents)
    png = base64.b64decode(found[-1].blob, validate=True)
    assert struct.unpack(">II", png[16:24]) == (1200, 600)
    assert len(png) < 100_000


def test_they_say_what_the_tools_say(researched: Lab) -> None:
    assert text(researched, "autoresearch://program") == read_program(researched).text()
    assert text(researched, "autoresearch://experiments/e0001") == show_experiment(researched, "e0001").content + "\n"
    assert text(researched, "autoresearch://experiments/e0001/log") == "> a quick run on cpu\n"


def test_a_long_log_says_what_was_left_out(researched: Lab) -> None:
    researched.state.run("e0001.1").log.write_text("a line\n" * 10_000 + "the end\n")
    log = text(researched, "autoresearch://experiments/e0001/log")
    assert "> the end" in log
    assert "the whole log:" in log
    assert len(log.encode()) < 10_000


def test_train_py_is_the_callers_own_and_its_first_line_says_so(researched: Lab) -> None:
    researched.workspace.train.write_text("# edited\n")
    first, _, rest = text(researched, "autoresearch://train.py").partition("\n")
    assert first.startswith("# autoresearch: ")
    assert "as it is now, built on e0001" in first
    assert rest == "# edited\n"


def test_train_py_is_the_champions_where_the_callers_own_cannot_be_read(researched: Lab) -> None:
    kept = researched.workspace.train.read_text()
    researched.workspace.train.unlink()
    researched.workspace.train.symlink_to("/etc/hostname")
    first, _, rest = text(researched, "autoresearch://train.py").partition("\n")
    assert "the train.py of e0001, the champion, because" in first
    assert rest == kept


@in_both_eras
def test_what_there_is_not_is_an_error_of_the_parameters(researched: Lab, era: str) -> None:
    async def use(client: Client) -> None:
        for path, expected in (
            ("experiments/e0099", "e0099"),
            ("experiments/e0099/diff", "history"),
            ("experiments/../log", "Unknown resource"),
            ("experiments/..%2F..%2Fledger/log", "Unknown resource"),
            ("nothing", "Unknown resource"),
        ):
            with pytest.raises(MCPError, match=expected) as raised:
                await client.read_resource(f"autoresearch://{path}")
            assert raised.value.error.code == -32602

    connected(researched.root, use, era=era)


@in_both_eras
def test_where_there_is_no_lab_the_error_names_the_command(tmp_path_factory: pytest.TempPathFactory, era: str) -> None:
    folder = tmp_path_factory.mktemp("nothing")

    async def use(client: Client) -> list[str]:
        told = []
        for uri in ["autoresearch://program", "autoresearch://progress.png", "autoresearch://experiments/e0001"]:
            with pytest.raises(MCPError) as raised:
                await client.read_resource(uri)
            told.append(raised.value.error.message)
        return told

    assert all("autoresearch init" in message for message in connected(folder, use, era=era))


def test_reading_changes_nothing_in_the_record(researched: Lab) -> None:
    head = researched.ledger.head()
    read(researched, *TEXTS, "autoresearch://progress.png")
    assert researched.ledger.head() == head
    assert not researched.workspace.progress_chart.exists()
