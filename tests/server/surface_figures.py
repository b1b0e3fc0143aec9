"""What an agent's context pays for this server, and the start of a session: the figures of docs/CLIENTS.md, as Markdown.

    python -m tests.server.surface_figures

A lab of the quick runner with the real train.py is researched through the in-memory client: a transcript of the first ten calls
after the prompt `start`, then a dozen experiments, then the answers of every tool that is called often. Tokens are counted with
o200k_base where `bpe_openai` has it or tiktoken can fetch it; else with a vocabulary that our own `prepare` trains on this
repository, which needs somewhat more tokens, and says so.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.types import CallToolResult, TextContent

REPOSITORY = Path(__file__).resolve().parents[2]
CALLS = 10
EXPERIMENTS = 12
LINES, CHARACTERS = 6, 110  # of an answer, in the transcript
VOCABULARY = 8192  # of the stand-in

Count = Callable[[str], int]


def counter() -> tuple[str, Count]:
    """Return the name of the encoding that can be had here, and what counts its tokens."""
    for package in ("bpe_openai", "tiktoken"):
        try:
            encoding = import_module(package).get_encoding("o200k_base")
        except (ImportError, OSError, ValueError):
            continue
        return "o200k_base", partial(_tokens, encoding)
    tokenizer = import_module("autoresearch_mcp.prepare.tokenizer")
    texts = [
        path.read_text() for folder in ("server", "tools", "lab", "docs") for path in (REPOSITORY / folder).rglob("*.[pm][yd]")
    ]
    ranks = tokenizer.train_ranks(texts, VOCABULARY)
    own = tokenizer.Tokenizer(ranks, tokenizer.SPLIT_PATTERN, VOCABULARY)
    return f"a byte-level BPE of {VOCABULARY} tokens, trained on this repository", partial(_tokens, own)


def _tokens(encoding: Any, text: str) -> int:
    return len(encoding.encode(text))


def make_lab(folder: Path) -> Path:
    """Make a lab of the quick runner with the real train.py; nobody has begun a session."""
    os.environ.update(AUTORESEARCH_STATE=str(folder / "state"), AUTORESEARCH_CACHE=str(folder / "cache"))
    from autoresearch_mcp.lab.calibration import record
    from autoresearch_mcp.lab.lab import Lab
    from autoresearch_mcp.lab.scaffold import create_lab
    from autoresearch_mcp.prepare.building import prepare_corpus

    from ..conftest import WordsSource
    from ..quick.adopt import adopt_quick_runner

    root = folder / "lab"
    (root / "trainer").mkdir(parents=True)
    source = (REPOSITORY / "trainer" / "train.py").read_text()
    (root / "trainer" / "train.py").write_text(f"{source}\n# quick: val_bpb=2.0 seconds=0.3\n")
    corpus = prepare_corpus("tiny", source=WordsSource()).name
    (root / "autoresearch.toml").write_text(f'[budget]\nseconds = 5\n[corpus]\nname = "{corpus}"\n')
    create_lab(root)
    lab = Lab.open(root, pinned=False)
    record(lab.ledger, background_share=0.0, threshold=1.0)
    adopt_quick_runner(lab)
    lab.close()
    return root


class Session:
    """Calls of one client, with the answers that came, by name."""

    def __init__(self, client: Client, root: Path) -> None:
        self.client = client
        self.root = str(root)
        self.made: list[tuple[str, dict[str, Any], str]] = []
        self.answers: dict[str, CallToolResult] = {}

    async def call(self, tool: str, *, name: str = "", **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        (content,) = [part for part in result.content if isinstance(part, TextContent)]
        text = content.text.replace(self.root, "~/lab")
        if result.is_error:
            raise SystemExit(f"{tool}: {text}")
        self.made.append((tool, arguments, text))
        self.answers[name or tool] = result
        return result.structured_content or {}

    async def first_calls(self) -> None:
        """What an agent without access to files does after `start`."""
        await self.call("read_program")
        await self.call("start_session")
        await self.call("run_experiment", description="baseline", wait_seconds=0.0)
        baseline = await self.call("wait_experiment", experiment_id="e0001", after=0.3)
        assert baseline["state"] == "finished"
        read = await self.call("read_train", first_line=320)
        await self.try_idea("a higher learning rate", "minus=0.03", read["sha256"])
        await self.call("keep", experiment_id="e0002", reason="a clear gain")
        await self.try_idea("no warm-down", "minus=-0.05", None)

    async def try_idea(self, description: str, wish: str, sha256: str | None) -> str:
        last = "# quick: val_bpb=2.0 seconds=0.3\n"
        expected = {} if sha256 is None else {"expected_sha256": sha256}
        await self.call("edit_train", old=last, new=f"{last}# {description}\n# quick: {wish}\n", **expected)
        answer = await self.call("run_experiment", description=description, hypothesis=f"{description} should help")
        return answer["experiment"]["id"]

    async def the_rest(self) -> None:
        """Go on to a dozen experiments, then look at everything that is often looked at."""
        await self.call("revert", experiment_id="e0003", lesson="the warm-down is worth its steps")
        for number in range(4, EXPERIMENTS):
            await self.try_idea(f"idea {number}: a change with a description of usual length", f"minus=-0.0{number}", None)
            await self.call("revert", experiment_id=f"e{number:04d}", lesson="no gain beyond the noise between seeds")
        await self.call("edit_train", old="# quick: minus=0.03\n", new="# quick: minus=0.031 outcome=crashed\n")
        await self.call("run_experiment", name="run_experiment (unfinished)", description="one that crashes", wait_seconds=0.0)
        await self.call("wait_experiment", name="wait_experiment (crashed)", experiment_id=f"e{EXPERIMENTS:04d}", after=0.3)
        for tool in ("read_program", "history", "status", "report", "read_train", "start_session"):
            await self.call(tool)
        for part in ("summary", "diff", "log"):
            await self.call("show_experiment", name=f"show_experiment ({part})", experiment_id="e0002", part=part)


def in_text(result: CallToolResult) -> str:
    return "".join(part.text for part in result.content if isinstance(part, TextContent))


def in_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def table_of_tools(tools: list[Any], count: Count) -> list[str]:
    """Return the size of the list: of what a model is sent, and of the output schemas, which most clients keep."""
    rows = ["| tool | name, description, input schema | output schema |", "|---|---|---|"]
    totals = [0, 0]
    for tool in tools:
        sent = count(in_json({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}))
        kept = count(in_json(tool.output_schema or {}))
        totals = [totals[0] + sent, totals[1] + kept]
        rows.append(f"| `{tool.name}` | {sent} | {kept} |")
    return [*rows, f"| **{len(tools)} tools** | **{totals[0]}** | **{totals[1]}** |"]


def transcript(made: list[tuple[str, dict[str, Any], str]]) -> list[str]:
    lines = []
    for number, (tool, arguments, text) in enumerate(made[:CALLS], start=1):
        said = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        lines.append(f"{number:2d} {_short(f'{tool}({said})')}")
        shown = [line for line in text.splitlines() if line.strip()]
        lines += [f"     {_short(line)}" for line in shown[:LINES]]
        lines += [f"     [{len(shown) - LINES} more lines]"] if len(shown) > LINES else []
    return lines


def _short(line: str) -> str:
    flat = re.sub(r"\b[0-9a-f]{64}\b", lambda found: found[0][:12] + "...", line)
    return flat if len(flat) <= CHARACTERS else flat[: CHARACTERS - 3] + "..."


async def figures(root: Path) -> list[str]:
    from autoresearch_mcp.lab.lab import Lab
    from autoresearch_mcp.server.app import build_server

    encoding, count = counter()
    async with Client(build_server(partial(Lab.open, root, pinned=False))) as client:
        tools = (await client.list_tools()).tools
        (message,) = (await client.get_prompt("start")).messages
        instructions = count(client.instructions or "")
        session = Session(client, root)
        await session.first_calls()
        await session.the_rest()
    answers = sorted(session.answers.items())
    assert isinstance(message.content, TextContent)
    return [
        f"Tokens of {encoding}.",
        "",
        f"Instructions of the server: {instructions} tokens; prompt `start`: {count(message.content.text)}.",
        "",
        *table_of_tools(tools, count),
        "",
        f"After {EXPERIMENTS} experiments, an answer of:",
        "",
        "| call | as text | as JSON | bytes of text, of JSON |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {count(text)} | {count(structure)} | {len(text.encode())}, {len(structure.encode())} |"
            for name, result in answers
            for text, structure in [(in_text(result), in_json(result.structured_content))]
        ),
        "",
        f"The first {CALLS} calls after the prompt `start`:",
        "",
        "```",
        *transcript(session.made),
        "```",
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="autoresearch-figures-", ignore_cleanup_errors=True) as folder:
        print("\n".join(anyio.run(figures, make_lab(Path(folder)))))


if __name__ == "__main__":
    main()
