"""What strangers wrote stays where it is put: in one line, one cell, one code block."""

from __future__ import annotations

import pytest
from autoresearch_mcp.tools.markdown import bars, fenced, plain, table
from markdown_it import MarkdownIt

ATTACKS = [
    "a | b | c",
    "line one\n# heading\n- list",
    "# heading",
    "1. numbered",
    "- dash",
    "___",
    "```\ncode",
    "`code`",
    "![x](http://example.org/x.png)",
    "[x](http://example.org)",
    "<script>alert(1)</script>",
    "<!-- hidden -->",
    "**bold** and \\ and \\`",
    "\x1b[31mred\x1b[0m \u202ereversed",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_a_strangers_text_in_a_list_is_one_item_of_plain_text(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"- {plain(text)}\n- after")
    assert html.startswith("<ul>\n<li>")
    assert html.count("<li>") == 2
    for tag in ("<h1", "<ol", "<hr", "<code", "<img", "<a ", "<script", "<!--", "<strong", "<pre", "\x1b", "\u202e"):
        assert tag not in html, tag


@pytest.mark.parametrize("text", ATTACKS)
def test_a_strangers_text_in_a_table_is_one_cell(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(table(("a", "b"), [(plain(text), "after")]))
    assert html.count("<td>") == 2
    assert "<td>after</td>" in html


@pytest.mark.parametrize("text", ["```\nout", "~~~\nout", "````\n```", "</code></pre><b>"])
def test_a_strangers_text_does_not_leave_its_code_block(text: str) -> None:
    html = MarkdownIt().render(f"{fenced(text, 'text')}\n\nafter")
    assert html.count("<pre>") == 1
    assert html.endswith("</pre>\n<p>after</p>\n")


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert plain("*" * 100, 10) == "\\*" * 7 + "..."


def test_bars_show_the_lowest_value_as_the_shortest() -> None:
    assert bars([("a", 2.0, "baseline"), ("b", 1.5, ""), ("c", 1.0, "")], width=5).splitlines() == [
        "a  2.0000  #####  baseline",
        "b  1.5000  ###",
        "c  1.0000  #",
    ]
    assert bars([("a", 2.0, "")], width=3) == "a  2.0000  ###"
