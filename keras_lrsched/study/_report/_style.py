"""The style sheet of the HTML page, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --card: #f6f7f9; --line: #d9dde3; --text: #1b1f24; --soft: #59636e; --accent: #0b5cad;
  --good: #1a7034; --bad: #b3261e; --mark: #fff6d6;
  --c0: #1f6fb4; --c1: #c2570c; --c2: #2a8038; --c3: #7a4fb5; --c4: #c7304a; --c5: #0b7f86; --c6: #7d5a1e; --c7: #b83a8c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171c; --card: #1c2128; --line: #373e47; --text: #e6e9ed; --soft: #a3adb8; --accent: #7db8f5;
    --good: #6cc97a; --bad: #ff8a80; --mark: #3a3413;
    --c0: #6db3f2; --c1: #f39a4a; --c2: #6cc97a; --c3: #b79af0; --c4: #f4788a; --c5: #4fc9cf; --c6: #cfae6b; --c7: #f08ac6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, "Liberation Sans", Arial, sans-serif;
}
main { max-width: 1440px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 8px; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 6px 0; max-width: 78ch; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.answer { font-size: 1.08rem; }
.warning { border-left: 4px solid var(--bad); background: var(--card); padding: 8px 12px; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px; }

.frame { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.83rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; background: var(--card); vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; }
th:first-child, td.text { text-align: left; }
th.text { text-align: left; }
tbody th {
  position: sticky; left: 0; background: var(--back); min-width: 12rem; max-width: 16rem;
  white-space: normal; overflow-wrap: anywhere;
}
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  tbody th { min-width: 7.5rem; max-width: 7.5rem; }
  th, td { padding: 6px 8px; }
}
thead th:first-child { position: sticky; left: 0; }
tbody tr:last-child > * { border-bottom: 0; }
tr.best > * { background: var(--mark); }
.better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }

.chooser {
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px; margin: 0; min-width: 0;
}
.chooser legend { font-weight: 600; padding: 0 6px; }
.chooser .row { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; margin-bottom: 10px; }
.pairs {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 4px 16px;
  max-height: 15.5rem; overflow-y: auto; padding: 3px;
}
.pairs label {
  display: flex; gap: 8px; align-items: center; min-height: 28px; min-width: 0; line-height: 1.25; overflow-wrap: anywhere;
}
.pairs svg { flex: none; }
.pairs input { flex: none; }
button, select {
  font: inherit; font-size: 0.9rem; color: var(--text); background: var(--back); border: 1px solid var(--soft);
  border-radius: 4px; padding: 3px 10px; min-height: 30px; max-width: 100%;
}
.chooser .row label { display: inline-flex; gap: 6px; align-items: center; max-width: 100%; }
select { min-width: 0; text-overflow: ellipsis; }
button { cursor: pointer; }
input[type=checkbox] { width: 16px; height: 16px; accent-color: var(--accent); margin: 0; }

.charts { display: grid; grid-template-columns: minmax(0, 1fr); gap: 20px; margin-top: 20px; }
@media (min-width: 960px) { .charts { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: 12px; min-width: 0; }
h3 { overflow-wrap: anywhere; }
.options {
  display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; font-size: 0.9rem; margin: 6px 0; min-height: 30px;
}
.options label { display: inline-flex; gap: 6px; align-items: center; }
.plot { touch-action: pan-y; cursor: crosshair; }
.plot svg { display: block; width: 100%; }
.plot text { fill: var(--soft); font-size: 12px; font-family: inherit; }
.plot text.name { fill: var(--text); }
.plot text.name, .plot text.verdict { paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round; }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.cursor { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.band { stroke: none; fill-opacity: 0.14; }
.dim { opacity: 0.18; }
.empty { color: var(--soft); padding: 24px 0; }
.readout {
  font-size: 0.86rem; font-variant-numeric: tabular-nums; margin-top: 6px; border-top: 1px solid var(--line);
  padding-top: 6px; min-height: 5.8em;
}
.readout ul {
  list-style: none; margin: 2px 0 0; padding: 0; display: grid; gap: 3px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr));
}
.readout li { display: flex; gap: 6px; align-items: center; min-width: 0; }
.readout li span { overflow-wrap: anywhere; min-width: 6em; line-height: 1.2; }
.readout li b { margin-left: auto; font-weight: 600; white-space: nowrap; }
.readout svg { flex: none; }
figcaption { font-size: 0.86rem; color: var(--soft); padding-top: 6px; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: 2px 16px; font-size: 0.9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""
