#include "html/assets.h"

namespace qwenbench::html {

const std::string_view kStyle = R"css(
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --line: #d0d7de; --band: #f6f8fa;
        --bad: #b42318; --good: #1a7f37; --focus: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b1; --paper: #0d1117; --line: #30363d; --band: #161b22; --bad: #ff7b72;
          --good: #56d364; --focus: #58a6ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem;
     border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
.subtitle { margin: 0; color: var(--soft); }
a.skip { position: absolute; left: -100rem; } a.skip:focus { position: static; }
figure { margin: 1.5rem 0; }
.chart, tr { break-inside: avoid; } h2, figcaption { break-after: avoid; }
.chart canvas { max-width: 100%; }
figcaption { font-weight: 600; } figcaption span { display: block; font-weight: 400; color: var(--soft); font-size: .9rem; }
.chart { position: relative; height: 21rem; margin: .5rem 0; } .chart.tall { height: 26rem; }
.scale { display: flex; gap: .5rem; align-items: center; font-size: .85rem; color: var(--soft); }
.scale i { width: 10rem; height: .8rem; border: 1px solid var(--line); }
details > summary { cursor: pointer; color: var(--soft); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.table { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { background: var(--band); }
tbody th { font-weight: 500; }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --band: #eee; --bad: #900;
          --good: #060; }
  body { max-width: none; padding: 0; font-size: 11px; }
  .table { overflow: visible; } th, td { white-space: normal; } a.skip { display: none; }
}
)css";

}  // namespace qwenbench::html
