// Figures: specifications from the server, drawn by Plotly in the colours of the page, and taken away as files.

import { $, complain, fileName, h, raised, save } from "./dom.js";

let loading;
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/plotly.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = undefined; reject(new Error("the plotting library did not load")); };
    document.head.append(script);
  });
  return loading;
}

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

// "@ink" is the variable --ink; "@t0.25" lies a quarter along --map
function colour(token) {
  if (!/^@t[\d.]+$/.test(token)) return style(`--${token.slice(1)}`);
  const map = style("--map").split(",").map(c => channels(c.trim()));
  const at = Math.min(parseFloat(token.slice(2)), 1) * (map.length - 1);
  const i = Math.min(Math.floor(at), map.length - 2);
  return `rgb(${map[i].map((v, k) => Math.round(v + (at - i) * (map[i + 1][k] - v))).join(",")})`;
}

// Only values of keys that are colours: a run may be called "@ink"
function painted(value, key = "") {
  if (typeof value === "string") return /color(scale)?$/.test(key) && value[0] === "@" ? colour(value) : value;
  if (Array.isArray(value)) return value.map(v => painted(v, key));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, k)]));
}

const config = { responsive: true, displayModeBar: false, scrollZoom: false };
const drawn = new Set();

function layoutOf(spec, width) {
  const layout = painted(spec.layout);
  layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";  // a finger on a figure scrolls the page
  if (width < 480) {
    layout.height = Math.min(layout.height, 380);
    layout.margin = { ...layout.margin, l: 44, r: 6 };
    for (const axis of ["xaxis", "yaxis"]) layout[axis] = { ...layout[axis], nticks: 5 };
  }
  return layout;
}

async function draw(place, spec) {
  const Plotly = await plotly();
  if (!place.isConnected) return;
  const layout = layoutOf(spec, place.clientWidth);
  place.style.minHeight = `${layout.height}px`;
  await Plotly.react(place, painted(spec.data), layout, config);
  place.dataset.drawn = "yes";
}

// A figure with its caption and the buttons that take it away
export function figure(spec, name, title) {
  const place = h("div", { class: "plot", role: "img", "aria-label": title ?? plain(spec.caption) });
  place.style.minHeight = `${spec.layout.height}px`;
  const button = (words, act) => h("button", { type: "button", class: "quiet", "aria-label": `${words} of ${title ?? spec.id}`,
    onclick: () => act().catch(complain) }, words);
  const caption = h("figcaption", {}, raised(plain(spec.caption)), h("span", { class: "take" },
    button("PNG", () => picture(place, spec, name, "png")), button("SVG", () => picture(place, spec, name, "svg")),
    button("CSV", async () => save(new Blob([csv(spec)], { type: "text/csv" }), `${fileName(name)}-${spec.id}.csv`))));
  const whole = h("figure", { "data-figure": spec.id }, place, caption);
  const shown = { spec, place, draw: () => draw(place, spec).catch(complain) };
  drawn.add(shown);
  queueMicrotask(shown.draw);
  return Object.assign(whole, { plot: shown });
}

// Captions are escaped for HTML as reports need it; here they are text
const plain = text => text.replace(/<br>/g, " ").replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">")
  .replace(/&quot;/g, '"').replace(/&#x27;/g, "'").replace(/&amp;/g, "&");

export function redraw() {
  for (const shown of drawn) {
    if (shown.place.isConnected) shown.draw();
    else drawn.delete(shown);
  }
}

async function picture(place, spec, name, format) {
  const Plotly = await plotly();
  const size = { width: Math.max(place.clientWidth, 640), height: spec.layout.height };
  const url = await Plotly.toImage(place, { format, ...size, scale: format === "png" ? 2 : 1 });
  const [head, body] = url.split(/,(.*)/s);
  const bytes = head.includes("base64") ? Uint8Array.from(atob(body), c => c.charCodeAt(0)) : decodeURIComponent(body);
  save(new Blob([bytes], { type: format === "png" ? "image/png" : "image/svg+xml" }), `${fileName(name)}-${spec.id}.${format}`);
}

// A row for each point of each line; a text that a spreadsheet would run is quoted
export function csv(spec) {
  const harmless = text => /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  const cell = value => value === null || value === undefined ? "" : typeof value === "number" ? `${value}`
    : `"${harmless(plain(value)).replaceAll('"', '""')}"`;
  const axis = name => cell(spec.layout[name].title.text);
  const rows = [["series", axis("xaxis"), axis("yaxis")].join(",")];
  spec.data.forEach((trace, k) => trace.x.forEach((x, i) =>
    rows.push([cell(trace.name ?? `line ${k + 1}`), cell(x), cell(trace.y[i])].join(","))));
  return `${rows.join("\n")}\n`;
}

// ---- colours of the page

const THEMES = ["auto", "light", "dark"];
export function themes() {
  const stored = () => localStorage.getItem("isoflop-theme");
  const apply = name => {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = { auto: "Auto", light: "Light", dark: "Dark" }[name];
    $("theme").setAttribute("aria-label", `Colours: ${name}. Change`);
    redraw();
  };
  apply(THEMES.includes(stored()) ? stored() : "auto");
  $("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    localStorage.setItem("isoflop-theme", next);
    apply(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
