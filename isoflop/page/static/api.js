// Requests to the server that sent the page, and jobs that take longer: shown while they run, and cancelled there.

import { $, complain, fill, h, whisper } from "./dom.js";

const headers = { "X-Isoflop": "1", "Content-Type": "application/json" };

export class Refused extends Error {
  constructor(words, status) { super(words); this.status = status; }
}

async function read(response) {
  const found = await response.json().catch(() => ({ error: `the server answered ${response.status} without a reason` }));
  if (!response.ok) throw new Refused(found.error, response.status);
  return found;
}

async function ask(path, how = {}) {
  let response;
  try {
    response = await fetch(path, { headers, ...how });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer; is it still running?", 0);
  }
  return read(response);
}

export const get = path => ask(path);
export const post = (path, value = {}, how = {}) => ask(path, { method: "POST", body: JSON.stringify(value), ...how });
export const put = (path, value) => ask(path, { method: "PUT", body: JSON.stringify(value) });
export const drop = path => ask(path, { method: "DELETE" });

// An upload says how far it is, which fetch does not
export function upload(file, limit) {
  if (file.size > limit) {
    return Promise.reject(new Refused(`${file.name} is larger than ${limit >> 20} MB, the most that is taken`, 413));
  }
  const line = shown(`upload of ${file.name}`, () => request.abort());
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", `/api/upload?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-Isoflop", "1");
    request.responseType = "json";
    request.upload.onprogress = event => line.say({ done: event.loaded, total: event.total });
    request.onload = () => request.status < 300 ? resolve(request.response)
      : reject(new Refused(request.response?.error ?? "the upload failed", request.status));
    request.onerror = () => reject(new Refused("the upload was broken off", 0));
    request.onabort = () => reject(new Refused("the upload was cancelled", 0));
    request.send(file);
  }).finally(line.end);
}

// Run a job to its end: resolves to its result, rejects with its reason
export function follow(job, words) {
  const line = shown(words, () => post(`/api/jobs/${job.id}/cancel`).catch(complain));
  return new Promise((resolve, reject) => {
    const events = new EventSource(`/api/jobs/${job.id}/events`);
    events.onmessage = event => {
      const news = JSON.parse(event.data);
      line.say(news.progress, news.state);
      if (!["done", "failed", "cancelled"].includes(news.state)) return;
      events.close();
      if (news.state === "done") resolve(news.result);
      else reject(new Refused(news.state === "cancelled" ? `${words}: cancelled` : news.error, 0));
    };
    events.onerror = () => {
      if (events.readyState !== EventSource.CLOSED) return;  // else the browser tries again by itself
      reject(new Refused("the server was lost while this was under way", 0));
    };
  }).finally(line.end);
}

export const run = async (path, value, words) => follow(await post(path, value), words);

function shown(words, cancel) {
  const bar = h("progress", { "aria-label": words }), note = h("span", { class: "note" }, "");
  const began = Date.now();
  const line = h("div", { class: "job" }, h("span", {}, words), bar, note,
    h("button", { type: "button", onclick: cancel }, "Cancel"));
  const clock = setInterval(() => { if (!bar.hasAttribute("value")) note.textContent = waited(); }, 1000);
  const waited = () => `${Math.round((Date.now() - began) / 1000)} s`;
  $("jobs").append(line);
  whisper(`${words} under way`);
  return {
    say(progress, state) {
      if (state === "waiting") note.textContent = "waiting for its turn";
      if (!progress?.total) return;
      bar.max = progress.total;
      bar.value = progress.done;
      note.textContent = progress.left === undefined ? `${Math.round(100 * progress.done / progress.total)} %`
        : `${progress.what}: ${progress.done} of ${progress.total}, ${progress.left} s left`;
    },
    end() { clearInterval(clock); line.remove(); whisper(`${words} has ended`); },
  };
}
