// Compute at test time: accuracy against what it cost, where a table has it.

import { post } from "./api.js";
import { $, complain, field, fill, h, nothing, select, table } from "./dom.js";
import { figure } from "./plots.js";
import { keepOpened, opened, remember, state } from "./state.js";

export async function show(place) {
  const main = h("main", { id: "main", tabindex: "-1" });
  const pick = select([{ value: "", label: "Choose a table" }, ...state.tables.map(t => ({ value: t.id, label: t.name }))], state.kept.testtime ?? state.kept.form?.table ?? "", { id: "testtime-table" });
  pick.addEventListener("change", () => tell(main, pick.value).catch(complain));
  fill(place, h("div", { class: "split" }, h("aside", { class: "side", "aria-label": "Table" }, h("h2", {}, "Test time"), field("Table", pick),
    h("p", { class: "fine" }, "A row for each strategy and budget: accuracy (or coverage, pass rate) and gen_tokens, samples or token_limit; strategy or method names the line.")), main));
  await tell(main, pick.value);
}

async function tell(main, id) {
  const missing = nothing("What does thinking longer buy?", "Choose a table whose rows have an accuracy and what it cost in tokens or samples.");
  if (!id || !state.tables.some(t => t.id === id)) return fill(main, missing);
  remember({ testtime: id });
  const found = opened(id) ?? await post("/api/open", { table: id });
  keepOpened(found);
  const made = found.testtime;
  if (!made) return fill(main, nothing(`${found.name} has no test-time costs`, "It would need a column accuracy (or coverage, pass_rate) and one of gen_tokens, samples, token_limit."));
  const grid = { header: made.header, rows: made.rows, count: made.rows.length };
  fill(main, h("h1", {}, `Test time: ${found.name}`), figure(made.figure, found.name, `${made.metric} against ${made.cost}`),
    h("section", {}, h("h2", {}, "The front"), table(grid, "Rows that no cheaper row beats, cheapest first.", "narrow")));
}
