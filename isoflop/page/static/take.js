// The whole view as one HTML file: the fit's report, with the tables of the other views as they stand.

import { run } from "./api.js";
import { fileName, h } from "./dom.js";
import { state } from "./state.js";

const sections = new Map();  // of each fit: view -> table, as last shown

export function noted(fit, name, section) {
  if (!sections.has(fit)) sections.set(fit, new Map());
  if (section) sections.get(fit).set(name, section);
  else sections.get(fit).delete(name);
}

export async function wholePage(made) {
  const budget = state.kept.constraints?.flops;
  const asked = { sections: [...(sections.get(made.id)?.values() ?? [])], budgets: budget ? [budget] : [] };
  await run(`/api/fits/${made.id}/page`, asked, "Page of the whole view");
  h("a", { href: `/api/fits/${made.id}/page.html`, download: `${fileName(made.title)}.html` }).click();
}
