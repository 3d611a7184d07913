// Which runs to make next: those that narrow the interval at the target most for a small budget.

import { run } from "./api.js";
import { $, calm, complain, doubts, field, fileName, fill, h, nothing, parse, power, raised, table } from "./dom.js";
import { chooser } from "./fit.js";
import { current, remember, state, view } from "./state.js";
import { noted } from "./take.js";

export async function show(place) {
  const fit = current();
  if (!fit) return fill(place, h("main", { id: "main", class: "alone" }, nothing("Nothing is fitted yet", "Suggestions follow from a fit.", h("a", { class: "button main", href: "#fit" }, "Fit a table"))));
  const made = await view(fit.id), kept = state.kept.next ?? {};
  const top = made.cost_span?.[1] ?? 1e20;
  const input = (id, value) => h("input", { type: "text", id, value, required: true, inputmode: "decimal" });
  const main = h("main", { id: "main", tabindex: "-1" });
  const form = h("form", { onsubmit: event => { event.preventDefault(); suggest(main, made).catch(complain); } }, h("h2", {}, "Next runs"),
    state.fits.length > 1 && chooser(() => show(place)),
    field("Budget for runs (FLOP)", input("next-budget", kept.budget ?? round(top)), "all of them together"),
    field("About the plan at (FLOP)", input("next-about", kept.about ?? round(top * 100)), "whose interval is to shrink"),
    field("How many", input("next-count", kept.count ?? "5")), h("button", { class: "main", id: "next-button" }, "Suggest"));
  fill(place, h("div", { class: "split" }, h("aside", { class: "side", "aria-label": "What to spend" }, form), main));
  const found = state.suggested?.get(made.id);
  if (found) tell(main, made, found);
  else fill(main, nothing("Which runs tell most?", `Among runs that the budget can pay for, those that narrow the forecast of ${made.title} most for each FLOP.`));
}

const round = value => value.toExponential(1).replace("+", "");

async function suggest(main, made) {
  calm();
  const [budget, about, count] = ["budget", "about", "count"].map(n => $(`next-${n}`).value);
  remember({ next: { budget, about, count } });
  const found = await run(`/api/fits/${made.id}/next`, { budget: parse(budget), about: parse(about), count: parse(count) }, "Suggestion of runs");
  (state.suggested ??= new Map()).set(made.id, found);
  if (main.isConnected) tell(main, made, found);
}

function tell(main, made, found) {
  const caption = "Runs in the order in which to make them.";
  fill(main, h("div", { class: "head" }, h("h1", {}, "Suggested runs"), h("a", { class: "button", id: "next-csv", href: `/api/fits/${made.id}/next.csv`, download: `${fileName(made.title)}-next.csv` }, "CSV")),
    found.words.map(w => h("p", { class: "lede" }, raised(w))), table(found, caption), doubts(found.doubts));
  noted(made.id, "next", { title: "Suggested runs", caption: [...found.words, caption].join(" "), header: found.header, rows: found.rows });
}
