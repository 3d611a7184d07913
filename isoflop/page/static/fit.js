// Open a table, choose what its columns are and a law, fit, and see the fit.

import { get, post, run, upload } from "./api.js";
import { $, calm, complain, doubts, field, fileName, fill, formula, h, nothing, parse, power, raised, select, short, table, whisper } from "./dom.js";
import { figure } from "./plots.js";
import { added, current, forget, keepOpened, opened, remember, state, view } from "./state.js";
import { wholePage } from "./take.js";

const AUTO = { name: "auto", formula: "", columns: ["params", "tokens"], target: "loss", doc: "" };
let form, columns;

export async function show(place) {
  const side = h("aside", { class: "side", "aria-label": "Table and law" }), main = h("main", { id: "main", tabindex: "-1" });
  fill(place, h("div", { class: "split" }, side, main));
  panel(side);
  await results(main);
}

// ---- the panel

function panel(side) {
  form = state.kept.form ?? {};
  const names = state.tables.map(t => ({ value: t.id, label: t.uploaded ? `${t.name} (uploaded)` : t.name }));
  const choose = select([{ value: "", label: names.length ? "Choose a table" : "No table here yet" }, ...names], form.table ?? "", { id: "table" });
  choose.addEventListener("change", () => choose.value && open(choose.value));
  const file = h("input", { type: "file", id: "file", class: "unseen", accept: ".csv,.tsv,.jsonl,.ndjson,.json,.parquet",
    onchange: () => {
      const [one] = file.files;
      file.value = "";  // else the same file, mended, could not be chosen again
      if (one) take(one);
    } });
  const drop = h("label", { class: "drop", for: "file", id: "drop" }, h("b", {}, "Drop a file here"), " or choose one",
    h("small", {}, `CSV, TSV, JSON lines, JSON or Parquet, up to ${state.limits.upload >> 20} MB`));
  for (const name of ["dragover", "dragenter"]) drop.addEventListener(name, e => { e.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", e => { e.preventDefault(); if (e.dataTransfer.files[0]) take(e.dataTransfer.files[0]); });
  columns = h("div", { id: "columns" });
  fill(side, h("h2", {}, "Table"), field("Table", choose), file, drop, columns);
  const found = opened(form.table);
  if (found) choices(found);
  else if (form.table && state.tables.some(t => t.id === form.table)) open(form.table, true);
}

async function take(file) {
  calm();
  try {
    const found = await upload(file, state.limits.upload);
    state.tables.push({ id: found.id, name: found.name, uploaded: true });
    keepOpened(found);
    form = { table: found.id };
    remember({ form });
    panel(document.querySelector(".side"));
    $("table").focus();
  } catch (error) { complain(error); }
}

async function open(id, again = false) {
  calm();
  try {
    const found = opened(id) ?? await post("/api/open", { table: id });
    keepOpened(found);
    if (!again) { form = { table: id }; remember({ form }); }
    choices(found);
  } catch (error) { complain(error); }
}

const lawOf = name => state.laws.find(l => l.name === name) ?? AUTO;
const numeric = found => found.columns.filter(c => c.kind === "number").map(c => c.name);

// Which law's columns the table has, under one name or another
const fits = (law, have) => law.columns.every(c => have.has(c));

function choices(found) {
  const names = numeric(found), have = new Set([...found.columns.map(c => c.name), ...Object.keys(found.meant)]);
  if (have.has("params") && have.has("flops")) have.add("tokens");  // derived from the other two
  if (have.has("params") && have.has("tokens")) have.add("flops");
  const named = law => ({ value: law.name, label: law.name });
  const good = state.laws.filter(l => fits(l, have)), generic = state.laws.filter(l => !fits(l, have) && l.columns.length === 1);
  const rest = state.laws.filter(l => !good.includes(l) && !generic.includes(l));
  form.law ??= good.some(l => l.name === "chinchilla") ? "chinchilla" : have.has("flops") ? "auto" : "power_offset";
  const law = select([{ value: "auto", label: "auto: several laws, weighed" }, { group: "These columns", options: good.map(named) },
    { group: "One column of your choice", options: generic.map(named) }, { group: "Further columns", options: rest.map(named) }], form.law, { id: "law" });
  const formulaLine = h("p", { class: "law" }), roles = h("div", { id: "roles" });
  const retell = () => {
    form.law = law.value;
    fill(formulaLine, law.value === "auto" ? "The usual laws for these columns, weighed by how they forecast the larger runs from the smaller."
      : [formula(lawOf(law.value).formula), h("small", {}, (lawOf(law.value).doc.match(/Source: [^\n]+/) ?? [""])[0])]);
    fill(roles, roleFields(found, lawOf(law.value), names));
  };
  law.addEventListener("change", () => { form.target = undefined; retell(); remember({ form }); });
  fill(columns, preview(found), h("form", { id: "fit-form", onsubmit: event => { event.preventDefault(); start(found); } },
    h("h2", {}, "Law"), field("Law", law), formulaLine, roles, more(found),
    h("button", { class: "main", id: "fit-button" }, "Fit")));
  retell();
  remember({ form });
}

function preview(found) {
  const grid = { header: found.columns.map(c => c.name), rows: found.head, count: found.rows };
  const gone = Object.entries(found.left_out).map(([why, n]) => `; ${n} left out (${why})`).join("");
  const bad = found.refused_count > 0 && h("p", { class: "refused" }, `${found.refused_count} ${found.refused_count === 1 ? "row" : "rows"} cannot be read, the first being ${found.refused[0]}. To fit the others tick Leave bad rows out.`);
  return [h("p", { class: "fine" }, `${found.rows} rows, ${found.columns.length} columns${gone}.`), bad,
    h("details", {}, h("summary", {}, "First rows"), table(grid, `First rows of ${found.name}.`))];
}

function roleFields(found, law, names) {
  const wanted = [...law.columns];
  if (law.name !== "auto" && law.columns.includes("params") && law.columns.includes("tokens")) wanted.push("flops");
  if (law.name === "auto") wanted.push("flops");
  form.roles ??= {};
  const known = new Set(found.columns.map(c => c.name));
  const options = found.columns.map(c => ({ value: c.name, label: c.kind === "number" ? c.name : `${c.name} (${c.kind})` }));
  const made = wanted.map(c => {
    const guess = known.has(c) ? c : found.meant[c] ?? (/^x\d?$/.test(c) ? found.meant.flops ?? (known.has("flops") ? "flops" : names[0]) : "");
    const absent = c === "flops" ? "counted as 6ND" : c === "tokens" ? "flops / (6 params)" : "derived, if it can be";
    const pick = select([{ value: "", label: absent }, ...options], form.roles[c] ?? guess, { id: `role-${c}` });
    form.roles[c] = pick.value;
    pick.addEventListener("change", () => { form.roles[c] = pick.value; remember({ form }); });
    return field(c, pick);
  });
  const taken = new Set(Object.values(form.roles));
  const other = names.filter(n => !taken.has(n)).at(-1) ?? options.at(-1).value;
  const metric = select(options, form.target ?? (known.has(law.target) ? law.target : found.meant[law.target] ?? other), { id: "target" });
  form.target = metric.value;
  metric.addEventListener("change", () => { form.target = metric.value; remember({ form }); });
  return h("fieldset", {}, h("legend", {}, "Axes: the table's column for each"), made, field("fitted metric", metric));
}

function more(found) {
  const text = (key, hint, value = "") => {
    const input = h("input", { type: "text", value: form[key] ?? value, spellcheck: "false", autocomplete: "off", id: `more-${key}` });
    input.addEventListener("change", () => { form[key] = input.value; remember({ form }); });
    return field({ where: "Only rows where", hold_out: "Hold out rows where", draws: "Bootstrap draws", seed: "Seed" }[key], input, hint);
  };
  const groups = found.columns.filter(c => c.distinct >= 2 && c.distinct <= 6).map(c => c.name);
  const by = select([{ value: "", label: "one fit of all rows" }, ...groups.map(g => ({ value: g, label: `one fit for each ${g}` }))], form.by ?? "", { id: "by" });
  by.addEventListener("change", () => { form.by = by.value; remember({ form }); });
  const skip = h("input", { type: "checkbox", id: "skip", checked: form.skip_bad === true, onchange: () => { form.skip_bad = skip.checked; remember({ form }); } });
  return h("details", { open: Boolean(form.where || form.hold_out || form.by || found.refused_count) }, h("summary", {}, "Rows, hold-out, draws"),
    text("where", "as in flops > 1e21"), text("hold_out", "forecast and compared, as in params > 1e9"), field("Recipes", by),
    text("draws", "from 20 to 2000", "200"), text("seed", "the same seed gives the same intervals", "0"),
    h("div", { class: "check" }, skip, h("label", { for: "skip" }, "Leave bad rows out")));
}

// The columns chosen, as the server takes them: a law's own letters are bound, known names are renamed
function request(found) {
  const law = lawOf(form.law), rename = {}, axis = {}, known = new Set(found.columns.map(c => c.name));
  const whole = (text, usual) => text?.trim() ? parse(text) : usual;
  const shown = state.laws.length && law.name !== "auto" ? new Set(law.columns) : new Set(["params", "tokens", "flops"]);
  for (const [ours, theirs] of Object.entries(form.roles ?? {})) {
    if (!theirs || !(shown.has(ours) || ours === "flops")) continue;
    if (/^x\d?$/.test(ours)) axis[ours] = theirs;
    else if (theirs !== ours) {
      rename[theirs] = ours;
      if (known.has(ours)) rename[ours] = `${ours} of the table`;
    }
  }
  const target = rename[form.target] ?? form.target;
  const out = { table: found.id, law: form.law, rename, axis, where: form.where ?? "", hold_out: form.hold_out ?? "",
    by: form.by ?? "", derive: law.columns.includes("tokens") && form.roles.tokens === "", skip_bad: form.skip_bad === true, draws: whole(form.draws, 200), seed: whole(form.seed, 0) };
  return target && target !== law.target ? { ...out, target } : out;
}

async function start(found) {
  calm();
  const button = $("fit-button");
  button.disabled = true;
  try {
    const words = `Fit of ${form.law}`;
    const made = await run("/api/fits", request(found), words);
    const { fits: all } = await get("/api/state");
    added(...(made.fits ?? [made.id]).map(id => all.find(f => f.id === id)));
    whisper(`${words} is done`);
    if (document.documentElement.dataset.view === "fit") await results($("main"));
  } catch (error) { complain(error); } finally { button.disabled = false; }
}

// ---- the fit

export function chooser(changed, id = "shown", words = "Fit") {
  const pick = select(state.fits.map(f => ({ value: f.id, label: f.title })), current()?.id, { id });
  pick.addEventListener("change", () => { remember({ fit: pick.value }); changed(pick.value); });
  return field(words, pick);
}

async function results(main) {
  const fit = current();
  if (!fit) return fill(main, welcome());
  const made = await view(fit.id);
  const figures = Object.fromEntries(made.figures.map(f => [f.id, f]));
  const drawn = id => figures[id] && figure(figures[id], made.title);
  fill(main,
    h("div", { class: "head" }, h("h1", {}, made.title), h("div", { class: "tools" }, state.fits.length > 1 && chooser(() => results(main)), takeAway(made, main))),
    h("p", { class: "lede" }, raised(`${made.n} runs (${spans(made)}).${made.verdict ? ` ${made.verdict}.` : ""}`)),
    doubts(made.doubts),
    made.auto && section("Laws, weighed", h("p", {}, made.auto.words), table(made.auto, "Weight of each law in a forecast.")),
    section("The law", h("p", { class: "big" }, formula(made.formula)),
      table(made.coef, `Coefficients at the best fit, with central ${made.level} % intervals.`, "narrow"), drawn("curve")),
    figures.truth && section("Forecast against truth", drawn("truth"), table(made.checks, "Held-out runs: forecasts and measurements.")),
    figures.compute && section("What a budget buys", drawn("compute"),
      made.frontier && h("details", {}, h("summary", {}, "The frontier in numbers"), table(made.frontier, "The law's best at each budget: medians and intervals."))),
    figures.isoflop && section("At equal compute", drawn("isoflop"),
      made.profiles && [h("p", {}, made.profiles.words), h("details", {}, h("summary", {}, "The profiles in numbers"), table(made.profiles, "IsoFLOP profiles: the lowest point of each budget's parabola."))]),
    section("What the law misses", residuals(figures.residuals, made)),
    provenance(made));
  main.dataset.fit = made.id;
}

const section = (title, ...inside) => h("section", {}, h("h2", {}, title), inside);
const spans = made => Object.entries(made.spans).map(([c, [low, high]]) => `${c} ${c === "flops" ? power(low) : short(low)} to ${c === "flops" ? power(high) : short(high)}`).join(", ");

function residuals(spec, made) {
  const shown = figure(spec, made.title);
  const pick = select(spec.choices.map((c, i) => ({ value: String(i), label: plainText(c.name) })), "0");
  pick.addEventListener("change", () => {
    const choice = spec.choices[pick.value];
    spec.data.forEach((trace, i) => { trace.x = choice.x[i]; });
    spec.layout.xaxis = choice.axis;
    shown.plot.draw();
  });
  return [h("div", { class: "choose" }, field("Against", pick)), shown];
}
const plainText = text => new DOMParser().parseFromString(text, "text/html").body.textContent;

function takeAway(made, main) {
  return h("div", { class: "row" },
    h("button", { type: "button", id: "take-page", onclick: () => wholePage(made).catch(complain) }, "Save as one page"),
    h("a", { class: "button", href: `/api/fits/${made.id}/fit.json`, download: `${fileName(made.title)}.json` }, "Save the fit"),
    h("button", { type: "button", class: "quiet", onclick: () => forget(made.id).then(() => results(main)).catch(complain) }, "Forget"));
}

function provenance(made) {
  const facts = { Objective: made.made.objective, Search: made.made.search, Intervals: made.made.draws, "SHA-256 of the rows": made.made.rows };
  return h("footer", {}, h("h2", {}, "Provenance"), h("dl", { class: "facts" }, Object.entries(facts).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
}

const welcome = () => nothing("At equal compute, which choice is best, and how sure are we?",
  "Open a table of training runs: one row a run, with columns such as params, tokens, flops and loss. Choose a law and fit it; then plan budgets with it, compare recipes, and see which runs to make next.",
  h("p", { class: "fine" }, "Files stay on the machine that runs this server. Nothing is loaded from anywhere else."));
