"""The report as a page and as a file: what is on it, that strangers' words stay words, and that no other file is replaced."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.control_group import AUTOPILOT
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.test_split import TestComparison
from autoresearch_mcp.server import markup
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.server.report_page import report_page
from autoresearch_mcp.tools.report import gather, report, whole_report
from typer.testing import CliRunner, Result

from ..nights.synthetic import Kind, fill

MakeLab = Callable[..., Lab]
HOSTILE = (
    "</title></style></pre><script>alert(1)</script><img src=http://example.org/x onerror=alert(1)> \" ' & \x1b[2J\u202e長い"
)
VISIBLE = HOSTILE.replace("\x1b[2J\u202e", "")  # what a candidate may have
_EMPTY = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would find: elements in their nesting, their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag: str = "html") -> str:
        return "".join(self.texts.get(tag, []))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def try_out(lab: Lab, description: str, change: str = "", *, hypothesis: str = "") -> Experiment:
    lab.workspace.train.write_text(lab.workspace.train.read_text() + change)
    experiment, _ = experiments.propose(lab, description=description, hypothesis=hypothesis)
    return wait(lab, experiment.id, 20.0)


@pytest.fixture
def night(make_quick_lab: MakeLab) -> Lab:
    """A lab with a session that kept two changes, failed once and discarded an idea, all in a stranger's words."""
    lab = make_quick_lab()
    try_out(lab, "baseline")
    for made_so_far, minus in enumerate((0.1, 0.2)):
        made = try_out(
            lab,
            f"better by {minus} {HOSTILE}",
            f"# quick: minus={minus}\nX{made_so_far} = {minus}  # {VISIBLE}\n",
            hypothesis=HOSTILE,
        )
        experiments.keep(lab, made.id, HOSTILE)
    for change in ("outcome=invalid", "minus=-0.5"):
        experiments.revert(lab, try_out(lab, HOSTILE, f"# quick: {change}\nY = '{change}'\n").id, HOSTILE)
    return lab


def page_of(lab: Lab, session: str = "") -> tuple[str, Page]:
    text = report_page(gather(lab, session))
    return text, Page(text)


def test_the_page_says_what_the_markdown_says(night: Lab) -> None:
    _, page = page_of(night)
    markdown = whole_report(night, gather(night)).markdown
    headings = [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]
    assert page.texts["h2"] == headings
    text = page.text()
    for words in ("val_bpb 2.0000 -> 1.7000", "1 run, 0 with fresh seeds", "noise between seeds (sigma)", night.ledger.head()):
        assert words in text, words
        assert words in markdown, words
    assert page.text("thead").startswith("idtheme")
    assert page.text("ins").count("+# quick: minus=0.1") == 1


def test_the_page_stands_alone_and_a_browser_may_load_and_run_nothing(night: Lab) -> None:
    text, page = page_of(night)
    policy = next(a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy")
    style = base64.b64encode(hashlib.sha256(page.text("style").encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'"
    known = (
        "html head meta title style body main h1 h2 h3 p strong section table thead tbody tr th td figure img div a span ul li "
    )
    assert {tag for tag, _ in page.tags} <= {*known.split(), "article", "pre", "ins", "del"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert re.fullmatch(r"#e\d{4}", attributes.get("href") or "#e0001")
    assert "url(" not in page.text("style")
    assert "@import" not in page.text("style")
    assert text.isascii() or "\x1b" not in text


def test_what_strangers_wrote_is_there_and_means_nothing(night: Lab) -> None:
    text, page = page_of(night)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>" in page.text("h3")
    assert "<script>alert(1)</script>" in page.text("ins")
    assert "<script>alert(1)</script>" in page.text("td")
    assert len(page.attributes("img")) == 1


def test_a_line_of_a_diff_is_one_line_whatever_is_in_it() -> None:
    page = Page(str(markup.diff("+ added\r- no line of its own\x85+ nor this\n- removed\n")))
    assert page.texts == {"pre": page.texts["pre"], "ins": ["+ added- no line of its own+ nor this"], "del": ["- removed"]}


def test_a_kept_change_leads_to_its_diff(night: Lab) -> None:
    _, page = page_of(night)
    assert [attributes["id"] for attributes in page.attributes("article")] == ["e0002", "e0003"]
    assert [attributes["href"] for attributes in page.attributes("a")] == ["#e0002", "#e0003"]


def test_the_autopilots_search_is_drawn_beside_the_session(night: Lab) -> None:
    first = night.session().tag
    night.workspace.train.write_bytes(night.ledger.stored(night.session().base_sha256))
    night.presence.autopilot = True
    rival, _ = night.start_session("new", f"{AUTOPILOT} (random, seed 7)")
    try_out(night, "baseline")
    experiments.keep(night, try_out(night, "search", "# quick: minus=0.25\n").id, "")
    _, page = page_of(night, first)
    drawn = [attributes["src"] or "" for attributes in page.attributes("img")]
    assert len(drawn) == 2
    for source in drawn:
        picture = base64.b64decode(source.partition(",")[2])
        assert struct.unpack(">II", picture[16:24]) == (1200, 600)
    assert (
        f"Against {AUTOPILOT} (random, seed 7) (session {rival.tag}): after 2 experiments each this session is behind"
        in page.text("li")
    )


def test_what_the_test_split_says_is_on_the_page_and_in_the_file_and_never_in_an_answer(night: Lab) -> None:
    opened = TestComparison(
        baseline="e0001",
        champion="e0003",
        opened_at=0.0,
        times_opened=1,
        gain_val=0.3,
        gain_test=0.1,
        gap=0.2,
        standard_error=0.03,
        z=6.7,
        sigma=0.02,
        noise="a prior",
    )
    found = replace(gather(night), test=opened)
    page, markdown = Page(report_page(found)), whole_report(night, found).markdown
    for text in (page.text(), markdown):
        assert "The session overfits the validation set" in text
        assert "+0.2000, standard error 0.0300" in text
    assert "Validation against test" not in report(night).markdown


@pytest.mark.parametrize("session", ["nothing", "only a crash"])
def test_a_session_without_a_number_has_a_page(make_quick_lab: MakeLab, session: str) -> None:
    lab = make_quick_lab()
    if session == "only a crash":
        lab.workspace.train.write_text(lab.workspace.train.read_text() + "# quick: outcome=crashed\n")
        lab.start_session("crash", "tester")
        try_out(lab, "baseline")
    _, page = page_of(lab)
    assert page.texts["h2"][-2:] == ["Conditions", "How to reproduce"]
    assert page.attributes("img") == []


@pytest.mark.slow
def test_five_hundred_experiments_are_a_page_of_a_megabyte_and_what_is_cut_says_so(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab(extra="[stop]\ncrashes_in_a_row = 0\n")
    fill(lab, 500, sessions=1, kind=Kind(words=' of "長い説明" and <more> words & signs' * 20))
    text, page = page_of(lab)
    assert len(text.encode()) < 1_100_000
    assert "..." in page.text("li")
    assert page.text("td").count("e0500") >= 1


def test_a_long_diff_is_cut_with_the_command_that_shows_it(make_quick_lab: MakeLab) -> None:
    lab = make_quick_lab()
    try_out(lab, "baseline")
    lines = "".join(f"# line {number} {'x' * 60}\n" for number in range(900))
    experiments.keep(lab, try_out(lab, "long", f"# quick: minus=0.1\n{lines}").id, "")
    assert re.search(r"\d+ more lines: autoresearch show e0002 --part diff", page_of(lab)[1].text("p"))


def test_the_ending_of_the_file_says_what_is_written(night: Lab, tmp_path: Path) -> None:
    for name in ("a.html", "b.HTM", "c.md", "d.txt"):
        result = call("report", "--output", tmp_path / name, "--lab", night.root)
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / name}\n"), result.output
        text = (tmp_path / name).read_text()
        assert text.startswith("<!doctype html>" if name[0] in "ab" else "# autoresearch: session ")
    unknown = call("report", "--output", tmp_path / "report.pdf", "--lab", night.root)
    assert unknown.exit_code == 2
    assert "FILE.html" in unknown.stderr
    assert not (tmp_path / "report.pdf").exists()


def test_only_a_report_of_ours_is_replaced_unless_forced(night: Lab, tmp_path: Path) -> None:
    for name in ("report.html", "report.md"):
        path = tmp_path / name
        path.write_text("<h1>mine</h1>\n")
        refused = call("report", "--output", path, "--lab", night.root)
        assert refused.exit_code == 2
        assert "--force" in refused.stderr
        assert path.read_text() == "<h1>mine</h1>\n"
        assert call("report", "--output", path, "--force", "--lab", night.root).exit_code == 0
        assert call("report", "--output", path, "--lab", night.root).exit_code == 0
    empty = tmp_path / "empty.html"
    empty.touch()
    assert call("report", "--output", empty, "--lab", night.root).exit_code == 0
    missing = call("report", "--output", tmp_path / "no" / "report.html", "--lab", night.root)
    assert missing.exit_code == 2
    assert "cannot be written" in missing.stderr


def test_a_folder_that_is_called_like_a_page_is_an_error_and_stdout_takes_markdown(night: Lab, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    assert call("report", "--output", tmp_path / "folder.html", "--lab", night.root).exit_code == 2
    assert call("report", "--output", "/dev/null", "--lab", night.root).exit_code == 0


def test_what_strangers_wrote_leaves_a_terminal_as_it_is(night: Lab) -> None:
    for arguments in (["show", "e0003"], ["show", "e0003", "--part", "diff"], ["history"], ["history", "--summary", "themes"]):
        printed = call(*arguments, "--lab", night.root)
        assert printed.exit_code == 0, printed.output
        assert "\x1b" not in printed.stdout, arguments
        assert "\u202e" not in printed.stdout, arguments


def test_finalize_makes_the_branch_and_says_how_to_review_it(night: Lab) -> None:
    tag = night.session().tag
    result = call("finalize", "--lab", night.root)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"autoresearch/{tag}-final: 2 commits on ")
    assert f"git -C {night.root} log --patch --reverse" in result.stdout
    assert "\x1b" not in result.stdout
    again = call("finalize", "--json", "--lab", night.root)
    assert '"is_new": false' in again.stdout
    refused = call("finalize", "--branch", tag, "--lab", night.root)
    assert refused.exit_code == 1
    assert "--branch NAME" in refused.stderr


def test_opening_the_test_split_is_asked_for_and_then_told_in_every_report(make_quick_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_quick_lab()
    try_out(lab, "baseline")
    experiments.keep(lab, try_out(lab, "lucky", "# quick: minus=0.3 test_plus=0.3\n").id, "")
    path = tmp_path / "report.html"
    call("report", "--output", path, "--lab", lab.root)
    assert "Validation against test" not in path.read_text()
    opened = call("report", "--open-test", "--output", path, "--lab", lab.root)
    assert opened.exit_code == 0, opened.output
    for _ in range(2):
        assert "The session overfits the validation set" in path.read_text()
        call("report", "--output", path, "--lab", lab.root)
    assert "Validation against test" not in report(lab).markdown
