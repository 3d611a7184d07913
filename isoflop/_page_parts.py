"""The style sheet and the script of the HTML report."""

CSS = """
:root { --page: #fff; --card: #f6f7f8; --ink: #1b1f24; --muted: #667080; --grid: #e6e8ec; --band: #1b1f2412;
  --accent: #c2508f; --held: #d55e00; --second: #0072b2; --data: #277f8e; --warn: #fff6e9; --warn-edge: #d98a00;
  --map: #4ac16d,#1fa187,#277f8e,#365c8d,#46327e,#440154;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1e2329; --ink: #e4e7eb; --muted: #97a1ae;
  --grid: #2a3037; --band: #e4e7eb14; --accent: #e58bbd; --held: #ff8c42; --second: #5db4ee; --data: #3fb5b0;
  --warn: #2a2115; --warn-edge: #d98a00; --map: #4a74b8,#3588a8,#25a18b,#4cbc6d,#9bd73c,#f3e51e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1.0625rem/1.55 var(--serif); }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 600; margin: 0 0 .75rem; text-wrap: balance;
  overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; font-weight: 600; margin: 0 0 .75rem; }
section { margin-top: 3rem; }
p { margin: .5rem 0; max-width: 44rem; }
.lede { font-size: 1.15rem; }
.fine { color: var(--muted); }
.doubts { margin: 1.5rem 0 0; padding: .9rem 1.25rem; background: var(--warn);
  border-left: 4px solid var(--warn-edge); }
.doubts h2 { font: 600 .95rem var(--sans); margin: 0 0 .4rem; }
.doubts ul { margin: 0; padding-left: 1.1rem; font: .92rem/1.5 var(--sans); overflow-wrap: anywhere; }
.formula { font-size: 1.2rem; font-style: italic; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.5rem; }
.plot { width: 100%; }
figcaption, caption { font: .88rem/1.5 var(--sans); color: var(--muted); max-width: min(44rem, 92vw);
  text-align: left; }
figcaption { margin-top: .5rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.scroll { overflow: auto; max-height: 30rem; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; font: .88rem/1.4 var(--sans); font-variant-numeric: tabular-nums; width: 100%;
  border-bottom: 1.5px solid var(--ink); }
.narrow table { width: auto; min-width: 22rem; }
caption { padding-bottom: .5rem; }
thead th { border-top: 1.5px solid var(--ink); box-shadow: inset 0 -1px var(--ink); background: var(--page);
  position: sticky; top: 0; font-weight: 600; vertical-align: bottom; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; }
td { white-space: nowrap; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 6.5rem; max-width: 16rem; }
tbody tr + tr > * { border-top: 1px solid var(--grid); }
.span { display: block; color: var(--muted); font-size: .8rem; }
sup, sub { line-height: 0; font-size: .72em; }
.budget { background: var(--card); padding: 1.1rem 1.25rem; margin: 1rem 0 1.5rem; font-family: var(--sans); }
.budget label { font-size: .95rem; color: var(--muted); }
#budget-label { color: var(--ink); font-weight: 600; font-size: 1.15rem; margin-left: .4rem; }
.budget input { width: 100%; margin: .7rem 0; accent-color: var(--data); }
.budget dl { display: flex; flex-wrap: wrap; gap: .5rem 3rem; margin: .25rem 0; }
.budget dt { font-size: .85rem; color: var(--muted); }
.budget dd { margin: 0; }
.value { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.budget p { font-size: .85rem; color: var(--muted); margin: .5rem 0 0; }
.choose { font: .9rem var(--sans); color: var(--muted); }
select { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--grid); padding: .2rem .4rem;
  max-width: 100%; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--grid); }
footer h2 { font: 600 .95rem var(--sans); }
footer dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 0;
  font: .85rem/1.45 var(--sans); color: var(--muted); }
footer dt { color: var(--ink); }
footer dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.55rem; } .lede { font-size: 1.05rem; }
  footer dl { grid-template-columns: 1fr; gap: 0; } footer dd { margin-bottom: .6rem; }
  .budget dl { gap: .5rem 1.75rem; } }
@media print { main { max-width: none; } .scroll { max-height: none; overflow: visible; }
  .choose, .budget { display: none; } }
"""

JS = """
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

  // "@ink" is the variable --ink; "@t0.25" lies a quarter along --map
  function colour(token) {
    if (!/^@t[\\d.]+$/.test(token)) return style("--" + token.slice(1));
    const map = style("--map").split(",").map(c => channels(c.trim()));
    const at = Math.min(parseFloat(token.slice(2)), 1) * (map.length - 1);
    const i = Math.min(Math.floor(at), map.length - 2);
    return "rgb(" + map[i].map((v, k) => Math.round(v + (at - i) * (map[i + 1][k] - v))).join(",") + ")";
  }

  // Only values of keys that are colours: a run may be called "@ink"
  function painted(value, key) {
    if (typeof value === "string") return /color(scale)?$/.test(key) && value[0] === "@" ? colour(value) : value;
    if (Array.isArray(value)) return value.map(v => painted(v, key));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, k)]));
  }

  const config = { responsive: true, displayModeBar: false, scrollZoom: false };
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";  // a finger on a figure scrolls the page
  const figures = Object.fromEntries(data.figures.map(f => [f.id, f]));
  const place = figure => document.getElementById("plot-" + figure.id);
  const layout = figure => ({ ...painted(figure.layout, ""), dragmode });
  const draw = figure => Plotly.react(place(figure), painted(figure.data, ""), layout(figure), config);

  function chooseBudget() {
    const mark = data.budgets[slider.value];
    document.getElementById("budget-label").textContent = mark.label;
    slider.setAttribute("aria-valuetext", mark.label);
    const cells = document.querySelectorAll("#budget-stats > div");
    mark.parts.forEach((part, i) => {
      cells[i].querySelector(".value").textContent = part.text;
      cells[i].querySelector(".span").textContent = part.span;
    });
    say("second", mark.second && "Second opinion, by the IsoFLOP parabolas: params " + mark.second);
    say("beyond", mark.beyond.length && "Beyond what was measured: " + mark.beyond.join("; "));
    const figure = figures.compute;
    if (!figure) return;
    Object.assign(figure.data[figure.chosen], { x: [mark.budget], y: [mark.best] });
    if (place(figure).data) Plotly.restyle(place(figure), { x: [[mark.budget]], y: [[mark.best]] }, [figure.chosen]);
  }

  function say(id, words) {
    const line = document.getElementById(id);
    if (line) { line.hidden = !words; line.textContent = words || ""; }
  }

  function chooseResidualAxis() {
    const figure = figures.residuals, choice = figure.choices[select.value];
    figure.data.forEach((trace, i) => { trace.x = choice.x[i]; });
    figure.layout.xaxis = choice.axis;
    draw(figure);
  }

  const slider = document.getElementById("budget"), select = document.getElementById("residual-axis");
  if (slider) { chooseBudget(); slider.addEventListener("input", chooseBudget); }
  figures.residuals.choices.forEach((choice, i) => {
    const option = document.createElement("option");
    option.value = i; option.textContent = choice.name;
    select.append(option);
  });
  select.addEventListener("change", chooseResidualAxis);
  Promise.all(data.figures.map(draw)).then(() => { document.documentElement.dataset.drawn = data.figures.length; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data.figures.forEach(draw));
})();
"""
