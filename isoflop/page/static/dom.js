// Elements, numbers as people write them, and what is said to the reader. Texts of tables only ever become text nodes.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "disabled", "selected", "open", "hidden"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(4).filter(c => c !== null && c !== undefined && c !== false));
  return element;
}

export const $ = id => document.getElementById(id);

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(4).filter(c => c !== null && c !== undefined && c !== false));
  return element;
}

let fades;
export function complain(error) {
  const words = typeof error === "string" ? error : error.message;
  fill($("said"), h("p", {}, words, h("button", { type: "button", class: "quiet", "aria-label": "Dismiss",
    onclick: () => fill($("said")) }, "×")));
  clearTimeout(fades);
}
export const calm = () => fill($("said"));
export const whisper = words => { $("quiet").textContent = words; };

// ---- numbers

const LETTERS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

export function short(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  for (const [size, letter] of LETTERS) {
    if (Math.abs(value) >= size && Math.abs(value) < size * 1000) return `${+(value / size).toPrecision(digits)}${letter}`;
  }
  return Math.abs(value) >= 1e15 || (value && Math.abs(value) < 1e-4) ? power(value, digits) : `${+value.toPrecision(digits)}`;
}

export function power(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e").map(Number);
  if (Math.abs(exponent) < 4) return `${+value.toPrecision(4)}`;
  const raised = `${exponent < 0 ? "⁻" : ""}${[...`${Math.abs(exponent)}`].map(d => RAISED[d]).join("")}`;
  return mantissa === 1 ? `10${raised}` : `${mantissa} × 10${raised}`;
}

// "1.4B", "6e23", "300M" as numbers; NaN for anything else
export function parse(text) {
  const found = /^\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([KMBTkmbt]?)\s*$/i.exec(text.replaceAll(",", ""));
  if (!found) return NaN;
  const letter = { k: 1e3, m: 1e6, b: 1e9, t: 1e12 }[found[2].toLowerCase()] ?? 1;
  return parseFloat(found[1]) * letter;
}

// 6e18 in words of the server, as 6 × 10¹⁸
export const raised = text => text.replace(/(?<![\w.-])(\d(?:\.\d+)?)e\+?(-?\d+)(?![\w-])/g,
  (_, m, e) => power(parseFloat(`${m}e${e}`)));

// ---- parts of pages

const GREEK = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", eta: "η", lambda: "λ", mu: "μ", rho: "ρ", sigma: "σ",
  tau: "τ", phi: "φ" };

export function formula(text) {
  const out = h("span", { class: "formula" });
  for (const part of text.split(/(\^\([^()]*\)|\^-?[\w.]+|\b[A-Za-z]+_[A-Za-z0-9]+\b)/)) {
    const greek = part.replace(/\b[a-z]+\b/g, w => GREEK[w] ?? w);
    if (part.startsWith("^")) out.append(h("sup", {}, greek.slice(1).replace(/^\(|\)$/g, "").replace("-", "−")));
    else if (/^[A-Za-z]+_[A-Za-z0-9]+$/.test(part)) {
      const [base, below] = part.split("_");
      out.append(GREEK[base] ?? base, h("sub", {}, GREEK[below] ?? below));
    } else out.append(greek);
  }
  return out;
}

export function table(grid, caption, kind = "") {
  const head = h("tr", {}, grid.header.map(name => h("th", { scope: "col" }, name)));
  const rows = grid.rows.map(row => h("tr", {}, row.map((cell, i) =>
    i ? h("td", {}, ...halves(cell)) : h("th", { scope: "row" }, raised(cell)))));
  const more = grid.count > grid.rows.length ? ` The first ${grid.rows.length} of ${grid.count}.` : "";
  return h("div", { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption + more), h("thead", {}, head), h("tbody", {}, rows)));
}

// "2.81B (2.5B to 3.21B)": the interval in smaller type below
function halves(cell) {
  const found = /^(.*?) \((.* to .*)\)$/.exec(cell);
  return found ? [raised(found[1]), h("small", { class: "span" }, raised(found[2]))] : [raised(cell)];
}

export function field(label, control, hint) {
  const id = control.id || (control.id = `f${Math.random().toString(36).slice(2, 9)}`);
  const about = hint && h("small", { id: `${id}-hint` }, hint);
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h("div", { class: "field" }, h("label", { for: id }, label), control, about);
}

export const select = (options, value, attributes = {}) => {
  const made = h("select", attributes, options.map(o => o.group
    ? h("optgroup", { label: o.group }, o.options.map(option)) : option(o)));
  if (value !== undefined && value !== null) made.value = value;
  return made;
};
const option = o => h("option", { value: o.value ?? o }, o.label ?? o.value ?? o);

export const doubts = list => list.length > 0 && h("aside", { class: "doubts", "aria-label": "Doubts" },
  h("h3", {}, "Doubts"), h("ul", {}, list.map(d => h("li", {}, raised(d)))));

export const nothing = (title, words, ...more) => h("div", { class: "nothing" }, h("h2", {}, title), h("p", {}, words), more);

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const fileName = text => text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 80) || "isoflop";
