"use strict";
// The map page: shows the gallery's tiles, and asks the service where a photo was taken. Whatever the service answers is
// set as text, never as HTML, because ids and messages may hold anything.

const PAGE_TILES = 1000; // the most that the service lists at once
const MOST_TILES = 4000; // footprints on the map; more are a grey carpet
const MOST_IMAGES = 250; // about 10 MB
const LEAST_PX = 24; // a tile's side on the screen below which its image shows nothing
const IMAGES_AT_ONCE = 4; // so that the tiles of one page do not fill the service's door
const FARTHEST_M = 1_000_000; // the largest radius of a prior
const STATUS = {
  located: "Located",
  ambiguous: "Ambiguous: another place explains the photo nearly as well",
  not_found: "Not found: the photo probably shows a place outside this map",
};

const $ = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ---- talking to the service
let key = "";

/** Fetch, with the key; an answer that is a problem becomes an Error with words to read. */
async function ask(path, options = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The service does not answer. Is it still running?");
  });
  if (response.ok) return response;
  if (response.status === 401) $("key-form").hidden = false;
  const problem = await response.json().catch(() => ({ title: `Status ${response.status}`, detail: "" }));
  throw new Error(`${problem.title}: ${problem.detail}`);
}

const askJson = async (path, options) => (await ask(path, options)).json();
const say = (text, kind = "") => Object.assign($("message"), { textContent: text, className: kind });

/** A function that runs ``work``, ends its run before, and says what goes wrong. */
function latest(work) {
  let running = new AbortController();
  return () => {
    running.abort();
    running = new AbortController();
    work(running.signal).catch((error) => error.name === "AbortError" || say(error.message, "bad"));
  };
}

// ---- the map: Web Mercator without a base map, because there is no internet
const map = L.map("map", { attributionControl: false, maxZoom: 23, minZoom: 1, zoomSnap: 0.5 }).setView([20, 0], 2);
map.createPane("ground").style.zIndex = 250; // below the footprints
map.createPane("answer").style.zIndex = 450; // above them
L.control.scale({ imperial: false }).addTo(map);
const footprints = L.layerGroup().addTo(map);
const answers = L.featureGroup().addTo(map);
const canvas = L.canvas();
const images = new Map(); // tile id → overlay on the map

/** The same meridian on the turn of the world that the map shows. */
const near = (lon) => lon + 360 * Math.round((map.getCenter().lng - lon) / 360);
const place = ({ lat, lon }) => [lat, near(lon)];
const outline = (tile) => tile.corners.map(([lat, lon]) => [lat, near(lon)]);

/** A tile's image, laid on its four corners: footprints may be turned, which Leaflet's own overlay cannot show. */
const Ground = L.ImageOverlay.extend({
  initialize(url, corners) {
    this._corners = corners.map((corner) => L.latLng(corner));
    L.ImageOverlay.prototype.initialize.call(this, url, L.latLngBounds(corners), { pane: "ground", className: "ground" });
  },
  _reset() {
    this._lay((corner) => this._map.latLngToLayerPoint(corner));
  },
  _animateZoom({ zoom, center }) {
    this._lay((corner) => this._map._latLngToNewLayerPoint(corner, zoom, center));
  },
  _lay(project) {
    const [a, b, , d] = this._corners.map(project);
    const style = this._image.style;
    style.width = style.height = "100px"; // so that the matrix is a hundredth of the sides
    const sides = [b.x - a.x, b.y - a.y, d.x - a.x, d.y - a.y].map((side) => side / 100);
    style.transform = `matrix(${[...sides, a.x, a.y].join()})`;
  },
});

async function tilesInView(signal) {
  const view = map.getBounds().pad(0.1); // tiles are listed by their centre
  const query = new URLSearchParams({ limit: PAGE_TILES });
  if (view.getEast() - view.getWest() < 360) {
    const [west, east] = [view.getWest(), view.getEast()].map((lon) => L.Util.wrapNum(lon, [-180, 180], true));
    query.set("bbox", [west, Math.max(-90, view.getSouth()), east, Math.min(90, view.getNorth())].join());
  }
  const tiles = [];
  for (let cursor = "0"; cursor !== null && tiles.length < MOST_TILES; ) {
    query.set("cursor", cursor);
    const page = await askJson(`/gallery/tiles?${query}`, { signal });
    tiles.push(...page.tiles);
    cursor = page.cursor;
  }
  return tiles;
}

async function showTiles(signal) {
  const tiles = await tilesInView(signal);
  footprints.clearLayers();
  for (const tile of tiles) {
    const shape = L.polygon(outline(tile), { renderer: canvas, color: colour("quiet"), weight: 1, opacity: 0.5, fill: false });
    shape.bindTooltip(el("span", `${tile.id} · ${tile.gsd_m.toPrecision(2)} m/px`)).addTo(footprints);
  }
  const large = tiles.filter((tile) => sideInPx(tile) >= LEAST_PX);
  await showImages(large.length > MOST_IMAGES ? [] : large, signal);
}

function sideInPx(tile) {
  const [a, b] = outline(tile).map((corner) => map.latLngToLayerPoint(corner));
  return a.distanceTo(b);
}

async function showImages(tiles, signal) {
  const wanted = new Set(tiles.map((tile) => tile.id));
  for (const [id, overlay] of [...images].filter(([id]) => !wanted.has(id))) {
    URL.revokeObjectURL(overlay.remove()._url);
    images.delete(id);
  }
  const missing = tiles.filter((tile) => !images.has(tile.id));
  const load = async () => {
    for (let tile; (tile = missing.shift()); ) {
      const path = tile.id.split("/").map(encodeURIComponent).join("/");
      const response = await ask(`/gallery/tiles/${path}/image`, { signal }); // not by <img>, which sends no key
      const blob = await response.blob();
      signal.throwIfAborted();
      images.set(tile.id, new Ground(URL.createObjectURL(blob), outline(tile)).addTo(map));
    }
  };
  await Promise.all(Array.from({ length: IMAGES_AT_ONCE }, load));
}

// ---- the answer
/** An element with texts and elements in it. */
function el(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function facts(pairs) {
  return el("dl", ...pairs.filter(([, value]) => value !== null).flatMap(([name, value]) => [el("dt", name), el("dd", value)]));
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;

function showAnswer({ status, position, candidates, query, searched_tiles, timing_ms }) {
  const used = Object.entries(query.used).map(([name, source]) => `${name} (${source})`);
  const steps = Object.entries(timing_ms).map(([step, ms]) => [step, `${ms.toFixed(1)} ms`]);
  $("answer").replaceChildren(
    Object.assign(el("h2", STATUS[status]), { className: status }),
    facts([
      ["Position", position && `${position.lat.toFixed(6)}, ${position.lon.toFixed(6)}`],
      ["Accuracy", position && `${position.accuracy_m.toFixed(1)} m (68 %)`],
      ["Confidence", position && percent(position.confidence)],
      ["Heading", position && position.heading_deg !== null ? `${position.heading_deg.toFixed(0)}°` : null],
      ["Point", position && position.reference],
      ["Used", used.length ? used.join(", ") : null],
      ["Searched", `${searched_tiles} tiles`],
    ]),
    el("h2", "Best candidates"),
    el("ol", ...candidates.map(candidateItem)),
    el("details", el("summary", "Timings"), facts(steps)),
  );
}

function candidateItem(candidate) {
  const button = el("button", candidate.tile_id);
  button.onclick = () => map.fitBounds(L.latLngBounds(outline(candidate.tile)).pad(1));
  return el("li", button, ` score ${candidate.score.toFixed(2)}, ${percent(candidate.confidence)}`);
}

function drawAnswer({ position, candidates }) {
  const centre = position ?? candidates[0]; // a prior may leave no tile
  if (!centre) return;
  map.setView([centre.lat, centre.lon], map.getZoom(), { animate: false }); // first, so that `near` means here
  for (const candidate of [...candidates].reverse()) {
    const style = { pane: "answer", color: colour("warn"), weight: candidate.rank === 1 ? 3 : 1.5, fillOpacity: 0.08 };
    L.polygon(outline(candidate.tile), style).bindTooltip(el("span", `${candidate.rank}. ${candidate.tile_id}`)).addTo(answers);
  }
  let best = answers.getLayers().at(-1);
  if (position) {
    const style = { pane: "answer", color: colour("accent") };
    best = L.circle(place(position), { ...style, radius: position.accuracy_m, weight: 2 }).addTo(answers);
    L.circleMarker(place(position), { ...style, radius: 4, fillOpacity: 1 }).addTo(answers);
  }
  map.fitBounds(best.getBounds().pad(2), { animate: false });
}

/** The form as the service wants it: no empty fields, and the map's view as the prior. */
function question() {
  const form = new FormData($("ask"));
  for (const [name, value] of [...form]) if (value === "") form.delete(name);
  form.set("use_exif", $("use-exif").checked);
  if ($("only-here").checked) {
    const centre = map.getCenter();
    form.set("prior_lat", centre.lat);
    form.set("prior_lon", centre.wrap().lng);
    form.set("prior_radius_m", Math.min(FARTHEST_M, centre.distanceTo(map.getBounds().getNorthEast())));
  }
  return form;
}

async function localize(signal) {
  say("Looking …");
  $("answer").replaceChildren();
  answers.clearLayers();
  const answer = await askJson("/localize", { method: "POST", body: question(), signal });
  say("");
  showAnswer(answer);
  drawAnswer(answer);
}

async function showGallery(signal) {
  const gallery = await askJson("/gallery", { signal });
  $("key-form").hidden = true;
  $("gallery").textContent = `${gallery.count} tiles`;
  say(gallery.bounds ? "" : "The gallery is empty. Add a map: aerofix gallery add map.tif");
  if (!gallery.bounds) return;
  const [west, south, east, north] = gallery.bounds;
  map.fitBounds([[south, west], [north, east < west ? east + 360 : east]], { animate: false });
}

// ---- what the user does
const start = latest(showGallery);
map.on("moveend", latest(showTiles));
$("ask").onsubmit = latest(localize);
$("key-form").onsubmit = () => {
  key = $("key").value;
  start();
};
document.onsubmit = document.ondragover = (event) => event.preventDefault(); // this page does both itself
$("photo").onchange = () => {
  const [photo] = $("photo").files;
  URL.revokeObjectURL($("preview").src);
  $("preview").hidden = !photo;
  if (!photo) return;
  $("preview").src = URL.createObjectURL(photo);
  $("ask").requestSubmit();
};
$("preview").onerror = () => ($("preview").hidden = true); // browsers do not show TIFF
document.ondrop = (event) => {
  event.preventDefault();
  $("photo").files = event.dataTransfer.files;
  $("photo").onchange();
};
start();
