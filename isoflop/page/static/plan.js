// Sliders for the budget and the constraints; the plan follows, from the fit's draws.

import { post } from "./api.js";
import { $, complain, doubts, field, fill, h, nothing, parse, power, raised, select, short, table } from "./dom.js";
import { chooser } from "./fit.js";
import { figure, plotly } from "./plots.js";
import { current, remember, state, view } from "./state.js";
import { noted } from "./take.js";

const BUDGETS = { flops: "compute (FLOP)", usd: "money (USD)", gpu_hours: "GPU hours" };
const SPANS = { usd: [1e2, 1e10], gpu_hours: [1e1, 1e9] };
const LIMITS = [  // name, words, low, high, hint
  ["served_tokens", "Tokens to be served", 1e9, 1e16, "in the model's life, at 2N FLOP each"],
  ["unique_tokens", "Distinct tokens there are", 1e7, 1e15, "more of them are repeats"],
  ["epochs", "Most passes over them", 1, 100, "needs distinct tokens"],
  ["hours", "Hours until it is trained", 1, 1e5, "wall clock"],
  ["devices", "Devices at once", 1, 1e6, "at most"],
  ["batch_crit", "Critical batch (tokens)", 1e4, 1e9, "beyond it a larger batch buys less"],
];
const CARDS = ["params", "params_active", "params_nonembed", "tokens", null, "usd", "gpu_hours", "hours", "flops"];
const WORDS = { usd: "price (USD)", gpu_hours: "GPU hours", hours: "hours", flops: "compute (FLOP)", params: "parameters",
  tokens: "training tokens", train_flops: "training (FLOP)", serve_flops: "serving (FLOP)", effective_tokens: "tokens' worth, distinct",
  epochs: "passes over the data", devices: "devices", batch_tokens: "batch (tokens)", memory_gb: "memory of one device (GB)", shard: "split over devices",
  regret: "lost if the draw is right" };
const DEVICE = ["device", "precision", "usd_per_hour", "memory_gb", "mfu"];
const KNOWN = new Set([...Object.keys(BUDGETS), ...LIMITS.map(([name]) => name), ...DEVICE]);  // of any fit
const STEPS = 400;
let here, made, shown, asked = {}, waiting = false, busy = false;

export async function show(place) {
  here = place;
  const fit = current();
  if (!fit) return fill(place, h("main", { id: "main", class: "alone" }, nothing("Nothing is fitted yet", "A plan follows from a fit.", h("a", { class: "button main", href: "#fit" }, "Fit a table"))));
  made = await view(fit.id);
  asked = Object.fromEntries(Object.entries(state.kept.constraints ?? {}).filter(([k]) => KNOWN.has(k) || made.columns.includes(k)));
  const side = h("aside", { class: "side", "aria-label": "Budget and constraints" });
  const main = h("main", { id: "main", tabindex: "-1" });
  fill(place, h("div", { class: "split" }, side, main));
  const spec = made.figures.find(f => f.id === "compute") ?? made.figures.find(f => f.id === "curve");
  shown = spec && figure(spec, made.title, "What a budget buys");
  fill(main, h("div", { class: "head" }, h("h1", {}, `Plan by ${made.title}`)), h("div", { id: "cards" }),
    shown, h("div", { id: "limits" }));
  if (made.columns.length === 1) oneColumn(side);
  else constraints(side);
  await slide();
}

const again = () => show(here).catch(complain);

// ---- the sliders

function oneColumn(side) {
  const column = made.columns[0], [low, high] = made.spans[column];
  asked = { [column]: asked[column] ?? high * 10 };
  fill(side, h("h2", {}, "Where"), state.fits.length > 1 && chooser(again), slider(column, column, low, high * 1e4, "", true));
}

function constraints(side) {
  const unit = BUDGETS[state.kept.unit] ? state.kept.unit : "flops";
  const [low, high] = unit === "flops" && made.cost_span ? [made.cost_span[0], made.cost_span[1] * 1e5] : SPANS[unit] ?? [1e15, 1e27];
  for (const name of Object.keys(BUDGETS)) if (name !== unit) delete asked[name];
  asked[unit] ??= Math.sqrt(low * high);
  const pick = select(Object.entries(BUDGETS).map(([value, label]) => ({ value, label })), unit, { id: "unit" });
  pick.addEventListener("change", () => { remember({ unit: pick.value, constraints: without(Object.keys(BUDGETS)) }); again(); });
  const others = made.columns.filter(c => c in made.fixed);
  fill(side, h("h2", {}, "Budget"), state.fits.length > 1 && chooser(again), field("Counted in", pick),
    slider(unit, "Budget", low, high, "training and serving together", true),
    others.length > 0 && [h("h2", {}, "Held"), others.map(c => slider(c, c, made.spans[c][0], made.spans[c][1] * 100, "", true, made.fixed[c]))],
    folded("Constraints", LIMITS.some(([name]) => name in asked), LIMITS.map(([name, words, from, to, hint]) => slider(name, words, from, to, hint))),
    folded("Device", DEVICE.some(name => name in asked), devices()), h("button", { type: "button", class: "quiet", onclick: () => { remember({ constraints: {} }); again(); } }, "No constraints"));
}

// On a phone what is not used is folded, so that the budget and the plan are seen together
const folded = (title, used, ...inside) => h("details", { class: "part", open: used || matchMedia("(min-width: 60rem)").matches },
  h("summary", {}, h("h2", {}, title)), inside);

const without = names => Object.fromEntries(Object.entries(asked).filter(([k]) => !names.includes(k)));

function devices() {
  const chosen = state.devices.find(d => d.name === asked.device) ?? state.devices[0];
  const pick = select(state.devices.map(d => d.name), chosen.name, { id: "device" });
  pick.addEventListener("change", () => { asked = { ...without(["precision", "usd_per_hour", "memory_gb"]), device: pick.value }; changed(); fillIn(); });
  const rest = h("div", {});
  const fillIn = () => {
    const device = state.devices.find(d => d.name === pick.value);
    const precision = select(device.precisions, asked.precision ?? device.precisions[0], { id: "precision" });
    precision.addEventListener("change", () => { asked.precision = precision.value; changed(); });
    fill(rest, field("Precision", precision), number("usd_per_hour", "USD per GPU hour", device.usd_per_hour, `of the price table (${device.date}); put your own here`),
      number("memory_gb", "Memory of one device (GB)", device.memory_gb), number("mfu", "Share of peak reached", 0.4));
  };
  fillIn();
  return [field("Device", pick), rest];
}

function number(name, words, usual, hint) {
  const input = h("input", { type: "text", inputmode: "decimal", id: `number-${name}`, value: String(asked[name] ?? usual) });
  input.addEventListener("change", () => {
    const value = parse(input.value);
    input.toggleAttribute("aria-invalid", !(value > 0));
    if (value > 0) { asked[name] = value; changed(); }
  });
  return field(words, input, hint);
}

// A slider in logs with its number beside it; a slider that is not needed stands at "no limit"
function slider(name, words, low, high, hint, needed = false, usual) {
  const at = value => Math.round(STEPS * Math.log(value / low) / Math.log(high / low));
  const of = step => low * (high / low) ** (step / STEPS);
  const big = name === "flops" || high >= 1e16;
  const write = value => value === undefined ? "no limit" : big ? power(value) : short(value);
  if (needed) asked[name] ??= usual ?? of(STEPS / 2);
  const id = `slider-${name}`;
  const range = h("input", { type: "range", id, min: needed ? 0 : -1, max: STEPS, step: 1, value: asked[name] ? at(asked[name]) : -1 });
  const text = h("input", { type: "text", class: "amount", "aria-label": `${words}, as a number`, id: `amount-${name}`, value: write(asked[name]), autocomplete: "off" });
  const tell = () => range.setAttribute("aria-valuetext", write(asked[name]));
  range.addEventListener("input", () => {
    const step = Number(range.value);
    if (step < 0) delete asked[name];
    else asked[name] = Number(of(step).toPrecision(4));
    text.value = write(asked[name]);
    tell();
    changed();
  });
  text.addEventListener("focus", () => { text.value = asked[name] === undefined ? "" : String(Number(asked[name].toPrecision(6))); text.select(); });
  text.addEventListener("blur", () => { text.value = write(asked[name]); });
  text.addEventListener("change", () => {
    const value = parse(text.value);
    if (value > 0) { asked[name] = value; range.value = at(value); }
    else if (!needed) { delete asked[name]; range.value = -1; }
    tell();
    changed();
  });
  tell();
  return h("div", { class: "slider" }, h("label", { for: id }, words), text, range, hint && h("small", {}, hint));
}

function changed() {
  remember({ constraints: asked });
  slide().catch(complain);
}

// ---- the plan

// One question at a time; while it is answered only the latest further one waits
async function slide() {
  if (busy) { waiting = true; return; }
  busy = true;
  try {
    do {
      waiting = false;
      const began = performance.now(), of = made.id;
      const found = await post(`/api/fits/${of}/plan`, { constraints: asked }).catch(error => ({ feasible: false, why: error.message, figures: {}, limits: [], choices: [], warnings: [] }));
      if (of === made.id) tell(found);
      document.documentElement.dataset.slid = String(Math.round(performance.now() - began));
    } while (waiting);
  } finally { busy = false; }
}

function tell(found) {
  const place = $("cards");
  if (!place) return;
  if (!found.feasible) {
    fill(place, h("p", { class: "refused" }, found.why));
    fill($("limits"));
    return mark(null, found);
  }
  const names = CARDS.map(n => n ?? found.target).filter(n => found.figures[n] && n !== $("unit")?.value);
  const rest = Object.keys(found.figures).filter(n => !names.includes(n) && found.figures[n].best !== null);
  fill(place, h("dl", { class: "cards" }, names.map(n => card(n, found.figures[n]))));
  const rows = [...names, ...rest].map(n => [words(n), found.figures[n].text + (found.figures[n].span ? ` (${found.figures[n].span})` : "")]);
  const grid = { header: ["of the plan", "median"], rows, count: rows.length };
  fill($("limits"), doubts(found.warnings), binding(found.limits), h("section", {}, h("h2", {}, "The plan in numbers"), table(grid, `Medians and ${found.level} % intervals over the draws, each at its own optimum.`, "narrow")));
  noted(made.id, "plan", { title: "Plan under constraints", caption: Object.entries(asked).map(([k, v]) => `${k} ${typeof v === "number" ? Number(v.toPrecision(4)) : v}`).join(", "), header: grid.header, rows });
  mark(found.figures[made.cost_span ? "train_flops" : made.columns[0]] ?? null, found);
}

const words = name => WORDS[name] ?? name.replaceAll("_", " ");
const card = (name, figure) => h("div", {}, h("dt", {}, words(name)), h("dd", {},
  h("output", { class: "value", "data-name": name }, raised(figure.text)), h("span", { class: "span" }, raised(figure.span))));

function binding(limits) {
  if (!limits.length) return null;
  const rows = limits.map(l => h("tr", { class: l.binding ? "binds" : "" }, h("th", { scope: "row" }, words(l.name)),
    h("td", {}, h("meter", { min: 0, max: 1, value: Math.min(l.used ?? 0, 1), "aria-label": `${words(l.name)}, share used` })),
    h("td", {}, `${Math.round(100 * (l.used ?? 0))} %`), h("td", {}, l.binding ? "binds" : ""),
    h("td", {}, l.binding && l.worth ? Number(l.worth.toPrecision(2)).toString() : "")));
  return h("section", {}, h("h2", {}, "What limits it"), h("div", { class: "scroll narrow", tabindex: "0", role: "region", "aria-label": "Limits" },
    h("table", {}, h("caption", {}, "Share of each limit that the plan uses, and what the metric gains were it a tenth looser."),
      h("thead", {}, h("tr", {}, ["limit", "", "used", "", "gain"].map(t => h("th", { scope: "col" }, t)))), h("tbody", {}, rows))));
}

// Where the plan stands in the figure
async function mark(cost, found) {
  const target = found.figures[found.target];
  const spec = shown?.plot.spec;
  if (!spec) return;
  const x = made.columns.length === 1 ? asked[made.columns[0]] : cost?.best;
  const k = spec.chosen ?? spec.data.findIndex(t => t.meta === "plan");
  const at = k >= 0 ? k : spec.data.push({ mode: "markers", meta: "plan", hoverinfo: "skip", showlegend: false, marker: { size: 13, symbol: "diamond", color: "@accent", line: { width: 2, color: "@page" } } }) - 1;
  Object.assign(spec.data[at], { x: target && x ? [x] : [], y: target && x ? [target.best] : [] });
  if (!shown.plot.place.data) return;
  const Plotly = await plotly();
  if (shown.plot.place.data.length > at) await Plotly.restyle(shown.plot.place, { x: [spec.data[at].x], y: [spec.data[at].y] }, [at]);
  else await shown.plot.draw();
}
