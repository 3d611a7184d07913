// The page: which view is shown, by the address after #.

import { get, post, follow } from "./api.js";
import { $, calm, complain, fill, h } from "./dom.js";
import { themes } from "./plots.js";
import { added, again, load, state } from "./state.js";
import * as compare from "./compare.js";
import * as fit from "./fit.js";
import * as next from "./next.js";
import * as papers from "./papers.js";
import * as plan from "./plan.js";
import * as testtime from "./testtime.js";

const VIEWS = { fit, plan, compare, next, testtime, papers };
const TITLES = { fit: "Fit", plan: "Plan", compare: "Compare", next: "Next runs", testtime: "Test time", papers: "Papers" };

const JOBS = { fit: "Fit", groups: "Fits of the recipes", compare: "Comparison", suggest: "Suggestion of runs",
  page: "Page of the whole view", paper: "Claims of a paper" };

async function show() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const view = VIEWS[name] ?? fit;
  const key = VIEWS[name] ? name : "fit";
  document.title = `${TITLES[key]} · isoflop`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${key}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  calm();
  const place = h("div");  // of this visit: what an earlier one still waits for is shown nowhere
  fill($("view"), place);
  try {
    await view.show(place, rest.map(decoded).join("/"));
  } catch (error) {
    if (error.status === 401) return restart();
    if (place.isConnected) complain(error);
  }
  document.documentElement.dataset.view = key;
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// Where a token is needed: it stands after # in the address that the server printed, or is given by hand
async function enter() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (found) {
    history.replaceState(null, "", "/");
    await post("/api/login", { token: found[1] });
  }
}

function askToken(words) {
  const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true });
  fill($("view"), h("main", { id: "main", class: "alone" }, h("h1", {}, "isoflop"), h("p", {}, words),
    h("form", { class: "row", onsubmit: async event => {
      event.preventDefault();
      await post("/api/login", { token: input.value.trim() }).then(start).catch(complain);
    } }, h("label", { for: "token" }, "Token"), input, h("button", { class: "main" }, "Enter"))));
}

function restart() {
  fill($("view"), h("main", { id: "main", class: "alone" }, h("h1", {}, "This session has ended"),
    h("p", {}, "The server forgets sessions that nobody uses. Fits that were saved as files are not lost."),
    h("button", { type: "button", class: "main", onclick: () => location.reload() }, "Start again")));
}

async function start() {
  try {
    await enter();
    await load();
  } catch (error) {
    if (error.status === 401) return askToken("This server is reached from other machines too; give the token that it printed.");
    document.documentElement.dataset.ready = "failed";
    return complain(error);
  }
  await show();
  document.documentElement.dataset.ready = "yes";
  for (const job of state.jobs) {  // what a reload left running
    follow(job, JOBS[job.what]).then(async result => {
      if (!["fit", "groups"].includes(job.what)) return;
      added((await get("/api/state")).fits.find(f => f.id === result.id));
      if (document.documentElement.dataset.view === "fit") await show();
    }).catch(complain);
  }
}

document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); $("main")?.focus(); });
themes();
history.scrollRestoration = "manual";
addEventListener("hashchange", async () => {
  scrollTo(0, 0);
  await show();
  if (document.activeElement === document.body) $("main")?.focus({ preventScroll: true });
});
addEventListener("focus", async () => {
  if (!(await again().catch(() => false))) return;  // a server that does not answer is told when it is asked for something
  await show();
  complain("The fit that was shown is forgotten: another tab did so, or nobody used this session for long.");
});
start();
