// What the page knows: told by the server on loading, and kept there so that a reload finds it again.

import { get, put, drop as remove } from "./api.js";
import { complain } from "./dom.js";

export const state = { tables: [], fits: [], kept: {}, laws: [], limits: { upload: 0 }, devices: [], data: false };
const views = new Map(), tables = new Map();

export async function load() {
  Object.assign(state, await get("/api/state"));  // the first answer sets the session's cookie
  Object.assign(state, await get("/api/laws"));
}

// What another tab of this session opened, fitted or forgot; whether the fit that is shown is gone
export async function again() {
  const before = current()?.id;
  const { tables, fits } = await get("/api/state");
  Object.assign(state, { tables, fits });
  return before !== undefined && !fits.some(f => f.id === before);
}

let later;
export function remember(news) {
  Object.assign(state.kept, news);
  clearTimeout(later);
  later = setTimeout(() => put("/api/kept", state.kept).catch(complain), 400);
}

export async function view(id) {
  if (!views.has(id)) views.set(id, await get(`/api/fits/${id}`));
  return views.get(id);
}

export const current = () => state.fits.find(f => f.id === state.kept.fit) ?? state.fits.at(-1);

export function added(...fits) {
  const known = new Set(fits.map(f => f.id));
  state.fits = [...state.fits.filter(f => !known.has(f.id)), ...fits].slice(-8);
  remember({ fit: fits[0].id });
}

export async function forget(id) {
  await remove(`/api/fits/${id}`);
  state.fits = state.fits.filter(f => f.id !== id);
  views.delete(id);
}

export const opened = id => tables.get(id);
export const keepOpened = found => tables.set(found.id, found);
