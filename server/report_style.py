"""The stylesheet of the report's page: light and dark as the reader's system is, and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --quiet: #59636e; --paper: #ffffff; --panel: #f6f8fa; --line: #d1d9e0; --link: #0969da;
  --good: #1a7f37; --good-back: #dafbe1; --bad: #cf222e; --bad-back: #ffebe9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --quiet: #9198a1; --paper: #0d1117; --panel: #151b23; --line: #3d444d; --link: #4493f8;
    --good: #3fb950; --good-back: #12361c; --bad: #f85149; --bad-back: #431b1b;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 75rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p, li, td:last-child { overflow-wrap: anywhere; }
a { color: var(--link); }
.quiet { color: var(--quiet); }
.result { font-size: 1.15rem; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; text-align: right; }
th { font-weight: 600; }
thead th { white-space: nowrap; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.words, .facts th, .facts td { text-align: left; white-space: normal; }
.wide td:last-child { min-width: 16rem; }
.facts th { color: var(--quiet); font-weight: 400; }
.kept { color: var(--good); font-weight: 600; }
article { margin: 1rem 0; padding: .75rem 1rem; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; }
article ul { margin: .5rem 0; padding-left: 1.25rem; }
pre { margin: .5rem 0; padding: .5rem .75rem; overflow-x: auto; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; font: .8rem/1.45 ui-monospace, monospace; tab-size: 4; }
article pre { background: var(--paper); }
ins, del { text-decoration: none; }
ins { color: var(--good); background: var(--good-back); }
del { color: var(--bad); background: var(--bad-back); }
@media print {
  :root {
    --ink: #000000; --quiet: #444444; --paper: #ffffff; --panel: #ffffff; --line: #bbbbbb; --link: #000000;
    --good: #0b5e23; --good-back: #ffffff; --bad: #a40e26; --bad-back: #ffffff;
  }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
  .wide table { font-size: 7.5pt; }
  .wide th, .wide td { padding: .2rem .3rem; }
  .wide th { white-space: normal; }
  .wide td:last-child { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
"""
