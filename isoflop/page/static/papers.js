// The catalogue of papers: a listing to search, and each paper with its claims and what became of them.

import { get, run } from "./api.js";
import { $, complain, field, fill, h, raised, select, whisper } from "./dom.js";
import { state } from "./state.js";

let typing;

export async function show(place, name) {
  if (name) return tell(place, await get(`/api/papers/${encodeURIComponent(state.read = name)}`));
  const query = h("input", { type: "search", id: "query", value: state.query ?? "", placeholder: "Words in title, group, claims", autocomplete: "off" });
  const group = h("div", {}), list = h("ol", { class: "papers" }), count = h("p", { class: "fine", role: "status" });
  fill(place, h("main", { id: "main", class: "wide", tabindex: "-1" }, h("h1", {}, "Papers"),
    h("form", { class: "row search", role: "search", onsubmit: e => e.preventDefault() }, field("Search", query), group), count, list));
  const search = async () => {
    state.query = query.value;
    const found = await get(`/api/papers?q=${encodeURIComponent(query.value)}&group=${encodeURIComponent($("group")?.value ?? "")}`);
    if (!$("group")) {
      const pick = select([{ value: "", label: "all" }, ...found.groups], state.group ?? "", { id: "group" });
      pick.addEventListener("change", () => { state.group = pick.value; search().catch(complain); });
      fill(group, field("Group", pick));
      if (state.group) return search();
    }
    count.textContent = `${found.papers.length} of ${found.total} papers`;
    fill(list, found.papers.map(line));
  };
  query.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => search().catch(complain), 120); });
  await search();
  list.querySelector(`a[href="${link(state.read ?? "")}"]`)?.focus();  // back where the reader was
}

const link = name => `#papers/${encodeURIComponent(name)}`;

const line = p => h("li", {},
  h("div", { class: "paper-head" }, h("span", { class: "number" }, number(p)), h("span", { class: `verdict ${slug(p.verdict)}` }, p.verdict)),
  h("h2", {}, h("a", { href: link(p.name) }, p.title)),
  h("p", { class: "authors" }, [p.short, p.group, p.kind].filter(Boolean).join(" · ")),
  h("p", {}, coded(p.what)),
  h("p", { class: "fine" }, p.uses.length ? ["Here as ", p.uses.map((u, i) => [i ? ", " : "", h("code", {}, u)])] : "Nothing of it here yet",
    p.claims ? `; ${p.claims} ${p.claims === 1 ? "claim" : "claims"} to run` : ""));

const number = p => p.arxiv ? `arXiv:${p.arxiv}` : p.id ? `No. ${p.id}` : "";

const slug = verdict => verdict.replaceAll(" ", "-");

function tell(place, p) {
  document.title = `${p.short} · isoflop`;
  const needsData = p.results.some(r => r.verdict === "no data");
  const again = h("button", { type: "button", class: "main", id: "check", onclick: async () => {
    again.disabled = true;
    try {
      tell(place, await run(`/api/papers/${encodeURIComponent(p.name)}/check`, {}, `Claims of ${p.short}`));
      whisper(`${p.short}: ${$("verdict")?.textContent}`);
    } catch (error) { complain(error); again.disabled = false; }
  } }, p.results.length > 1 ? `Run its ${p.results.length} claims` : "Run its claim");
  fill(place, h("main", { id: "main", class: "wide", tabindex: "-1" },
    h("p", {}, h("a", { href: "#papers" }, "← All papers")),
    h("div", { class: "paper-head" }, h("span", { class: "number" }, number(p)), h("span", { id: "verdict", class: `verdict ${slug(p.verdict)}` }, p.verdict)),
    h("h1", {}, p.title), h("p", { class: "authors" }, [p.short, p.group, p.kind].filter(Boolean).join(" · ")),
    h("p", { class: "lede" }, coded(p.what)), p.headline && h("p", {}, h("b", {}, "The paper says: "), coded(p.headline)),
    p.why && h("p", {}, coded(p.why)), h("p", {}, p.uses.length ? ["Here as ", p.uses.map((u, i) => [i ? ", " : "", h("code", {}, u)])] : "Nothing of it is here yet."),
    needsData && h("p", { class: "fine" }, "Claims on public data need its folder: isoflop serve --data FOLDER."),
    p.results.length > 0 && [again, h("h2", {}, "Claims"), h("ol", { class: "claims" }, p.results.map(claim))]));
}

// `name` in code, as text nodes; a backtick without a second one stays
const coded = text => text.split(/`([^`]+)`/).map((part, i) => i % 2 ? h("code", {}, part) : raised(part));

const claim = r => h("li", {}, h("p", {}, h("span", { class: `verdict ${slug(r.verdict)}` }, r.verdict), " ", coded(r.words), r.stands && h("span", { class: "fine" }, " (", coded(r.stands), ")")),
  r.figures.some(f => f.found !== null) && h("div", { class: "scroll narrow", tabindex: "0", role: "region", "aria-label": "Expected and found" }, h("table", {},
    h("thead", {}, h("tr", {}, ["figure", "expected", "found"].map(t => h("th", { scope: "col" }, t)))),
    h("tbody", {}, r.figures.map(f => h("tr", {}, h("th", { scope: "row" }, f.of), h("td", {}, f.expected), h("td", {}, typeof f.found === "number" ? `${Number(f.found.toPrecision(6))}` : f.found ?? "–")))))),
  r.note && h("p", { class: "fine" }, coded(r.note)), r.verdict === "differs" && r.because && h("p", {}, h("b", {}, "Why: "), coded(r.because)));
