// The maps of the gallery: what there is, what is added, what is deleted.

import { $, choose, complain, el, facts, metres, say } from "./elements.js";
import { ask, askJson, upload } from "./service.js";
import { boundsOf, lookAt, lookAtAll, showMaps } from "./view.js";

const POLL_MS = 1000;
const hidden = new Set(); // names of maps that are not shown
let known = [];

export const mapNamed = (name) => known.find((each) => each.name === name);

/** Ask what there is, and show it; ``look`` moves the view to it. */
export async function refresh({ look = false } = {}) {
  const [gallery, { maps }] = await Promise.all([askJson("gallery"), askJson("maps")]);
  $("key-form").hidden = true;
  known = maps;
  $("gallery").textContent = `${maps.length === 1 ? "1 map" : `${maps.length} maps`}`;
  showMaps(known.filter(({ name }) => !hidden.has(name)));
  $("map-list").replaceChildren(...known.map(item));
  if (gallery.count === 0) say("There is no map yet. Drop one here: a GeoTIFF, or another georeferenced picture.");
  if (look && gallery.bounds) lookAtAll(maps, boundsOf(gallery.bounds).pad(0.05));
}

function item(state) {
  const shown = el("input", { type: "checkbox", checked: !hidden.has(state.name), title: "Show it" });
  shown.onchange = () => {
    hidden[shown.checked ? "delete" : "add"](state.name);
    showMaps(known.filter(({ name }) => !hidden.has(name)));
  };
  const look = el("button", { type: "button", className: "link", title: "Look at it" }, state.name);
  look.onclick = () => lookAt(boundsOf(state.bounds), { animate: true });
  const remove = el("button", { type: "button", className: "plain", title: "Delete this map" }, "Delete");
  remove.onclick = () => forget(state.name).catch(complain);
  const [west, south, east, north] = state.bounds;
  return el(
    "li",
    {},
    el("p", { className: "row" }, shown, look, remove),
    facts([
      ["From", state.origin],
      ["Date", state.date],
      ["Pixel", `${state.gsd_m.toPrecision(2)} m`],
      ["Bounds", `${south.toFixed(4)}, ${west.toFixed(4)} to ${north.toFixed(4)}, ${east.toFixed(4)}`],
      ["Searched as", `${state.windows} windows of ${state.levels.map(({ window_m }) => metres(window_m)).join(", ")}`],
      ["Size", `${(state.bytes / 1e6).toFixed(1)} MB`],
    ]),
  );
}

async function forget(name) {
  if (!(await choose(`Delete the map ${name}? Photos are then no longer found in it.`, "Delete"))) return;
  await ask(`maps/${encodeURIComponent(name)}`, { method: "DELETE" });
  await refresh();
}

/** Send a map, and add it; a name that is taken is asked about. */
export async function addMap(file, more = {}) {
  const bar = el("progress", { max: 1, value: 0 });
  const ends = new AbortController();
  const cancel = el("button", { type: "button", className: "plain", onclick: () => ends.abort() }, "Cancel");
  const sending = el("div", { className: "import" }, el("p", { className: "row" }, `Sending ${file.name}`, cancel), bar);
  $("imports").prepend(sending);
  const form = new FormData();
  for (const [name, value] of Object.entries(more)) form.set(name, value);
  form.set("file", file);
  try {
    const state = await upload("gallery/imports", form, (share) => (bar.value = share), ends.signal);
    sending.remove();
    await follow(state);
  } catch (error) {
    if (error.kind !== "map-exists") throw error;
    const word = await choose(error.message, "Replace it", "Add to it");
    if (word) await addMap(file, word === "Replace it" ? { replace: true } : { extend: true });
  } finally {
    sending.remove();
  }
}

/** Show how far an import is, until it ends. */
async function follow(state) {
  const box = el("div", { className: "import" });
  $("imports").prepend(box);
  const path = `gallery/imports/${encodeURIComponent(state.id)}`;
  const cancel = el("button", { type: "button", className: "plain" }, "Cancel");
  cancel.onclick = () => ask(path, { method: "DELETE" }).catch(complain);
  for (; ["queued", "running"].includes(state.state); state = await askJson(path)) {
    const left = state.eta_s === null ? "" : `, ${duration(state.eta_s)} left`;
    box.replaceChildren(
      el("p", { className: "row" }, `${state.name}: ${state.done} of ${state.total} pieces${left}`, cancel),
      el("progress", state.total ? { max: state.total, value: state.done } : {}),
      ...notes(state),
    );
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
  const close = el("button", { type: "button", className: "plain", onclick: () => box.remove() }, "Close");
  box.replaceChildren(el("p", { className: "row" }, ended(state), close), ...notes(state));
  await refresh();
  if (state.state === "done" && mapNamed(state.map)) lookAt(boundsOf(mapNamed(state.map).bounds).pad(0.05));
}

const duration = (s) => (s < 90 ? `${s.toFixed(0)} s` : `${(s / 60).toFixed(0)} min`);

function ended({ state, name, map, added }) {
  if (state === "done") return `${name} is added as ${map}: ${added} windows.`;
  return state === "cancelled" ? `${name} was cancelled.` : `${name} could not be added.`;
}

function notes({ warnings, problem, problems }) {
  const said = [...(problem ? [problem.detail] : []), ...problems.map((each) => `${each.item}: ${each.problem.detail}`)];
  return [...said.map((text) => el("p", { className: "bad" }, text)), ...warnings.map((text) => el("p", { className: "warn" }, text))];
}

/** Go on showing the imports that were running when the page was loaded. */
export async function followRunning() {
  const { imports } = await askJson("gallery/imports?limit=20");
  await Promise.all(imports.filter(({ state }) => ["queued", "running"].includes(state)).map(follow));
}
