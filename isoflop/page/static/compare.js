// Two recipes: where one overtakes the other, and how sure that is.

import { run } from "./api.js";
import { $, calm, complain, doubts, field, fill, h, nothing, parse, raised, select, table } from "./dom.js";
import { figure } from "./plots.js";
import { remember, state } from "./state.js";
import { noted } from "./take.js";

export async function show(place) {
  if (state.fits.length < 2) {
    return fill(place, h("main", { id: "main", class: "alone" }, nothing("Two fits are needed", "Fit two tables, or one table with a condition for each recipe (Rows, hold-out, draws: one fit for each value of a column).", h("a", { class: "button main", href: "#fit" }, "Fit a table"))));
  }
  const kept = state.kept.compare ?? {};
  const fits = state.fits.map(f => ({ value: f.id, label: f.title })), known = id => state.fits.some(f => f.id === id);
  const first = select(fits, known(kept.first) ? kept.first : state.fits.at(-2).id, { id: "first" });
  const second = select(fits, known(kept.second) ? kept.second : state.fits.at(-1).id, { id: "second" });
  const along = h("div", {}), main = h("main", { id: "main", tabindex: "-1" });
  const axes = () => {
    const columns = state.fits.find(f => f.id === first.value).columns;
    const axis = select([{ value: "", label: columns.length > 1 ? "equal training compute" : columns[0] }, ...(columns.length > 1 ? columns : [])], kept.axis ?? "", { id: "axis" });
    const held = h("div", {});
    const retell = () => fill(held, axis.value && columns.filter(c => c !== axis.value).map(c =>
      field(`${c} held at`, h("input", { type: "text", id: `held-${c}`, "data-column": c, value: kept.at?.[c] ?? "", required: true, placeholder: "1B" }))));
    axis.addEventListener("change", retell);
    retell();
    fill(along, field("Along", axis), held);
  };
  first.addEventListener("change", axes);
  axes();
  const form = h("form", { onsubmit: event => { event.preventDefault(); compare(main, first, second).catch(complain); } },
    h("h2", {}, "Recipes"), field("First", first), field("Second", second), along, h("button", { class: "main", id: "compare-button" }, "Compare"));
  fill(place, h("div", { class: "split" }, h("aside", { class: "side", "aria-label": "Recipes" }, form), main));
  if (state.compared) tell(main, state.compared);
  else fill(main, nothing("Which recipe wins, and from which scale on?", "Both curves are read from their fits' draws, so the scale at which they cross has an interval."));
}

async function compare(main, first, second) {
  calm();
  const at = Object.fromEntries([...document.querySelectorAll("[data-column]")].map(i => [i.dataset.column, parse(i.value)]));
  const asked = { first: first.value, second: second.value, axis: $("axis").value, at };
  remember({ compare: asked });
  state.compared = { ...(await run("/api/compare", asked, "Comparison")), fits: [first.value, second.value] };
  if (main.isConnected) tell(main, state.compared);
}

function tell(main, found) {
  const rows = found.roots.map(r => [power(r.at), r.before, r.after, ends(r.interval)]);
  const grid = { header: ["cross at", "better before", "better after", "interval"], rows, count: rows.length };
  fill(main, h("h1", {}, "Which recipe wins"), h("div", { id: "verdict" }, found.words.map((line, i) => h("p", { class: i ? "" : "lede" }, raised(line)))),
    doubts(found.doubts), figure(found.figure, "compare", "The lead of the first recipe"), rows.length > 0 && table(grid, "Where the two curves meet.", "narrow"));
  for (const fit of found.fits) noted(fit, "compare", { title: "Comparison of recipes", caption: found.words.join(" "), header: grid.header, rows });
}

const power = value => raised(value.toExponential(2).replace("+", ""));
const ends = ([low, high]) => `${low === null ? "below the span" : power(low)} to ${high === null ? "above it" : power(high)}`;
