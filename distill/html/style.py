"""The look of the report: calm, readable on paper, phone and screen, in light and dark."""

# Colours are variables, so that the dark scheme replaces them in one place; charts take theirs by class (``plots``).
# Blue and orange also differ for eyes that do not tell red from green.
CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --ink: #1c2329; --soft: #5b6670; --line: #e3e5e4; --wash: #f1f3f2;
  --student: #1668a8; --teacher: #b4560f; --target: #6b7680; --other: #5c4b9b; --good: #1a7f4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121518; --card: #1b1f23; --ink: #e7eaec; --soft: #a0abb4; --line: #2d3338; --wash: #22272c;
    --student: #6db3ee; --teacher: #f0a15c; --target: #98a4ae; --other: #b3a4f0; --good: #62c795;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); font-size: 16px; line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 4px 0 12px; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 4px; letter-spacing: -0.01em; }
h3 { font-size: 1rem; margin: 28px 0 8px; }
p { margin: 0 0 12px; max-width: 74ch; }
.kicker { color: var(--soft); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase; margin: 0; }
.lead { font-size: 1.2rem; line-height: 1.5; max-width: 62ch; margin-bottom: 24px; }
.soft, figcaption, .legend, .note { color: var(--soft); font-size: .9rem; }
a { color: var(--student); text-underline-offset: 3px; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--student); outline-offset: 3px; border-radius: 4px; }
nav { margin: 0 0 28px; }
nav ul { display: flex; flex-wrap: wrap; gap: 6px 18px; list-style: none; margin: 0; padding: 0; font-size: .9rem; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 28px 28px 24px;
  margin: 0 0 20px;
}
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0 0 28px;
  padding: 0;
}
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px 16px; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd {
  margin: 0; font-size: 1.6rem; font-weight: 600; letter-spacing: -0.02em; font-variant-numeric: tabular-nums;
}
.tiles dd + dd { font-size: .8rem; font-weight: 400; color: var(--soft); letter-spacing: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 20px 0 4px; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: 8px; }
th, td { text-align: left; padding: 10px 12px 10px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-size: .82rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 6.5em; }
.digest { white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
.measured { display: inline-flex; flex-direction: column; }
.value { font-weight: 600; }
.interval { color: var(--soft); font-size: .8rem; white-space: nowrap; font-weight: 400; }
.none { color: var(--soft); cursor: help; }
.kind { color: var(--soft); font-size: .8rem; font-weight: 400; display: block; }
.key {
  display: inline-block; width: .65em; height: .65em; border-radius: 50%; margin-right: .5em;
  background: var(--other);
}
.key.student, .legend .student { background: var(--student); }
.key.teacher, .legend .teacher { background: var(--teacher); }
.legend .target { background: var(--target); } .legend .other { background: var(--other); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; }
.legend i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin: 0 7px 3px 0; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 20px 28px;
  margin: 12px 0 0;
}
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 6px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
.chart { width: 100%; max-width: 460px; height: auto; display: block; overflow: visible; }
.chart text { fill: var(--soft); font-size: 12px; font-family: inherit; }
.chart .label { fill: var(--ink); }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .even { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 4; }
.dot { fill-opacity: .5; } .dot:hover { fill-opacity: 1; stroke: var(--ink); }
.dot.student, .end.student { fill: var(--student); } .dot.teacher, .end.teacher { fill: var(--teacher); }
.dot.other, .end.other { fill: var(--other); } .dot.target, .end.target { fill: var(--target); }
.curve, .outline, .span {
  fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; stroke: var(--other);
}
.span { stroke-width: 4; stroke-opacity: .35; }
.curve.student, .outline.student, .span.student { stroke: var(--student); }
.curve.teacher, .outline.teacher, .span.teacher { stroke: var(--teacher); }
.curve.target, .outline.target, .span.target { stroke: var(--target); }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); gap: 20px;
  margin-top: 14px;
}
.pairs {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 22px;
  margin-top: 14px;
}
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
img { max-width: 100%; height: auto; border-radius: 8px; display: block; background: var(--wash); }
.gallery img { width: 100%; aspect-ratio: 4 / 3; object-fit: cover; }
.pair img { width: 100%; aspect-ratio: 4 / 3; object-fit: cover; }
.pair.whole img { object-fit: contain; } .pairs table { margin-top: 6px; font-size: .88rem; }
.pairs td, .pairs th { padding: 4px 12px 4px 0; }
.heat {
  display: inline-block; min-width: 3.2em; padding: 1px 6px; border-radius: 4px;
  background: color-mix(in srgb, var(--student) calc(0.6 * var(--part)), transparent);
}
.scores {
  display: grid; grid-template-columns: auto 1fr auto; gap: 3px 9px; align-items: center; font-size: .85rem;
  margin: 8px 0 0;
}
.scores .bar { height: 6px; border-radius: 3px; background: var(--wash); overflow: hidden; }
.scores .bar i { display: block; height: 100%; border-radius: 3px; background: var(--target); }
.scores .bar .student { background: var(--student); } .scores .bar .teacher { background: var(--teacher); }
.scores .bar .other { background: var(--other); }
.scale {
  height: 8px; border-radius: 4px; margin: 8px 0 2px;
  background: linear-gradient(90deg, rgb(68,1,84), rgb(59,81,139), rgb(33,144,141), rgb(92,200,99), rgb(253,231,37));
}
.ends { display: flex; justify-content: space-between; font-size: .82rem; color: var(--soft); }
.down { color: var(--good); font-weight: 600; } .up { color: var(--teacher); font-weight: 600; }
pre {
  background: var(--wash); border-radius: 10px; padding: 14px 16px; white-space: pre-wrap; font-size: .85rem;
  line-height: 1.5; margin: 10px 0;
}
code {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .9em;
  overflow-wrap: anywhere;
}
pre code { font-size: 1em; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--student); }
.card h3:first-child { margin-top: 8px; } .card ul { padding-left: 20px; margin: 0 0 12px; }
footer { color: var(--soft); font-size: .85rem; }
@media (max-width: 700px) {
  main { padding: 24px 14px 56px; } h1 { font-size: 1.55rem; } .lead { font-size: 1.08rem; }
  section { padding: 20px 16px 16px; border-radius: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles dd { font-size: 1.35rem; }
  table.stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.stack, table.stack tbody, table.stack tr, table.stack th, table.stack td, table.stack caption {
    display: block; width: 100%;
  }
  table.stack tr { padding: 10px 0 12px; border-bottom: 1px solid var(--line); }
  table.stack tr:last-child { border-bottom: 0; }
  table.stack tbody th, table.stack td { border: 0; padding: 3px 0; text-align: left; }
  table.stack td { display: flex; justify-content: space-between; align-items: baseline; gap: 16px; }
  table.stack td::before { content: attr(data-label); color: var(--soft); font-size: .88rem; }
  table.stack td .measured { align-items: flex-end; text-align: right; }
  .chart text { font-size: 13px; }
  .gallery { grid-template-columns: 1fr 1fr; gap: 18px 14px; }
  .scores { grid-template-columns: 1fr auto; } .scores .bar { display: none; }
}
@media print {
  body { background: #fff; } nav { display: none; }
  section, .tiles div { break-inside: avoid; border-color: #ccc; }
}
"""
