"""How the report looks: light and dark, wide and narrow."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1d2126; --soft: #5d6670;
  --line: #dfe2e5; --accent: #1763c7; --key: #c75300; --stride: #16794f;
  --warn: #a11a1a;
  --run-0: #1763c7; --run-1: #c75300; --run-2: #16794f; --run-3: #a11a6b;
  --run-4: #6b4fc9; --run-5: #8a6d00; --run-6: #0e8a9c; --run-7: #b3261e;
  --run-8: #5c7a00; --run-9: #7a4a2b; --run-10: #4a5568; --run-11: #d0408f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #9aa4ae;
    --line: #333a42; --accent: #6db1ff; --key: #ffb13d; --stride: #58c993;
    --warn: #ff8d85;
    --run-0: #6db1ff; --run-1: #ffb13d; --run-2: #58c993; --run-3: #ff7ac6;
    --run-4: #b3a1ff; --run-5: #e6cf4a; --run-6: #4fd5e6; --run-7: #ff8d85;
    --run-8: #b5d957; --run-9: #d6a27c; --run-10: #b0bac6; --run-11: #ff9ad0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1080px;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.verdict { font-size: 1.08rem; }
.soft { color: var(--soft); }
.small { font-size: .875rem; }
.warn { color: var(--warn); }
.tiles {
  display: grid; gap: .75rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr));
}
.tile, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
.tile { padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .85rem; color: var(--soft);
  line-height: 1.35; }
.card { padding: .75rem; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.narrow { display: none; }
table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; }
.words th, .words td { overflow-wrap: normal; }
.words .small { font-weight: 400; }
thead th { font-size: .85rem; color: var(--soft); }
td.n, th.n { text-align: right; white-space: nowrap; }
.apart > * { color: var(--soft); font-weight: 400; }
.chip { display: inline-block; width: .8em; height: .8em; margin-right: .5em;
  border: 1px solid var(--line); border-radius: 2px; }
.bar { min-width: 4rem; width: 45%; }
.bar i { display: block; height: .7em; margin-top: .45em; border-radius: 2px;
  background: var(--accent); }
.pair { display: grid; gap: 0 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.pair > * { min-width: 0; }
video { display: block; width: 100%; max-height: 32vh; border-radius: 8px;
  background: #000; }
.index { max-width: 1500px; }
.index thead th { vertical-align: bottom; padding: .2rem; }
.index thead button { width: 100%; text-align: left; font-weight: 600;
  border-color: transparent; padding: .2rem .4rem; color: var(--soft); }
.index th.n { white-space: normal; }
.index th.n button { text-align: right; }
.index tbody th { white-space: nowrap; }
th[aria-sort=ascending] button::after { content: " \u25b2"; }
th[aria-sort=descending] button::after { content: " \u25bc"; }
a { color: var(--accent); }
.spark { width: 100px; height: 24px; }
.spark polyline { fill: none; stroke: var(--accent); stroke-width: 1.5px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0;
  margin: .6rem 0 0; list-style: none; font-size: .875rem; }
/* In sight beside the chart, whatever part of it is pointed at. */
.player { position: sticky; top: 0; z-index: 1; background: var(--paper);
  padding: .4rem 0; }
.live video { cursor: pointer; }
.live video:fullscreen { max-height: none; border-radius: 0; }
.live svg { cursor: crosshair; touch-action: pan-y; user-select: none;
  -webkit-user-select: none; }
.wide, .narrow { position: relative; }
.cross, .pin { pointer-events: none; vector-effect: non-scaling-stroke; }
line.cross { stroke: var(--soft); stroke-dasharray: 3 3; }
line.pin { stroke: var(--accent); stroke-width: 1.5px; }
circle.cross, circle.pin { fill: var(--accent); stroke: var(--card); }
.tip { position: absolute; pointer-events: none; white-space: pre-line;
  width: max-content; max-width: min(30rem, 62%);
  padding: .4rem .6rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--paper); font-size: .8rem; line-height: 1.45;
  font-variant-numeric: tabular-nums; box-shadow: 0 2px 8px #0003; }
.below { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center;
  margin: .5rem 0 0; }
.caption { font-variant-numeric: tabular-nums; font-size: .9rem;
  max-width: none; margin: 0; }
.buttons { display: flex; gap: .4rem; }
button { font: inherit; font-size: .875rem; color: var(--ink); cursor: pointer;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .3rem .7rem; }
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.copy { float: right; margin: .35rem .35rem 0 0; position: relative; }
.keys { display: grid; gap: 0 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); }
.keys img { min-width: 0; border-radius: 6px; }
figure { margin: 0 0 1.1rem; }
figure div { overflow-x: auto; border-radius: 6px; }
figure img { display: block; width: 100%; min-width: 40rem; height: auto; }
figcaption { font-size: .875rem; color: var(--soft); margin-top: .25rem; }
.key { color: var(--key); font-weight: 600; }
pre {
  white-space: pre-wrap; overflow-x: auto; user-select: all;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; margin: .5rem 0; font-size: .875rem; line-height: 1.5;
}
/* Lines break between arguments, never at a hyphen. */
pre span { white-space: pre; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem;
  margin: .5rem 0; }
dt { font-weight: 600; }
dd { margin: 0; }
details { margin-top: 2.5rem; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 600; }
summary + * { margin-top: .8rem; }
@media (max-width: 640px) {
  body { padding: 1.25rem .9rem 3rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .card { padding: .5rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  th, td { padding: .35rem .4rem; }
  .bar { width: 30%; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
}
@media print { details > * { display: block; } }
"""
