// The map: Web Mercator, with the maps of the gallery as its only ground, because there is no internet.

import { $, colour, el } from "./elements.js";
import { ask } from "./service.js";

const FARTHER_OUT = 2; // zooms below a map's coarsest at which its tiles are still shown, each a quarter as large
const CLOSER = 3; // zooms beyond the finest, to look at a photo on blurred ground

export const map = L.map("map", { attributionControl: false, maxZoom: 23, minZoom: 1, zoomSnap: 0.25 }).setView([20, 0], 2);
map.createPane("ground").style.zIndex = 210;
map.createPane("photo").style.zIndex = 420;
map.createPane("answer").style.zIndex = 450;
L.control.scale({ imperial: false }).addTo(map);

/** The same meridian on the turn of the world that the map shows. */
const near = (lon) => lon + 360 * Math.round((map.getCenter().lng - lon) / 360);
export const place = ({ lat, lon }) => [lat, near(lon)];
export const pairs = (corners) => corners.map(([lat, lon]) => [lat, near(lon)]);

/** Bounds of west, south, east, north, which may cross the antimeridian. */
export const boundsOf = ([west, south, east, north]) =>
  L.latLngBounds([south, west], [north, east < west ? east + 360 : east]);

export const tilePath = (name, z, x, y) => `maps/${encodeURIComponent(name)}/${z}/${x}/${y}.webp`;

/** Tiles that are fetched with the key, which an <img> cannot send. */
const Ground = L.GridLayer.extend({
  createTile({ x, y, z }, done) {
    const image = el("img", { alt: "" });
    ask(tilePath(this.options.name, z, ((x % 2 ** z) + 2 ** z) % 2 ** z, y))
      .then((response) => response.blob())
      .then((blob) => {
        image.onload = () => {
          URL.revokeObjectURL(image.src);
          done(null, image);
        };
        image.src = URL.createObjectURL(blob);
      })
      .catch((error) => done(error, image));
    return image;
  },
});

const shown = new Map(); // name → its layers, and what they were made from

/** Show these maps, and no others. */
export function showMaps(states) {
  for (const [name, { layers, stamp }] of shown) {
    if (states.some((state) => state.name === name && state.created_at === stamp)) continue;
    layers.remove();
    shown.delete(name);
  }
  for (const state of states) {
    if (!shown.has(state.name)) shown.set(state.name, { layers: layersOf(state).addTo(map), stamp: state.created_at });
  }
}

function layersOf({ name, bounds, minzoom, maxzoom }) {
  const options = { name, pane: "ground", bounds: boundsOf(bounds), minNativeZoom: minzoom, maxNativeZoom: maxzoom };
  const tiles = new Ground({ ...options, minZoom: minzoom - FARTHER_OUT, maxZoom: 23 });
  const edge = L.rectangle(boundsOf(bounds), { color: colour("quiet"), weight: 1, opacity: 0.6, fill: false, interactive: false });
  return L.layerGroup([tiles, edge]);
}

/** Look at bounds, no closer than what the maps show sharply allows. */
export function lookAt(bounds, { animate = false, maxZoom = 20 + CLOSER } = {}) {
  if (bounds.isValid()) map.fitBounds(bounds, { animate, maxZoom });
}

/** Look at all maps, or at the newest of those that lie so far apart that none would be seen. */
export function lookAtAll(states, bounds) {
  const zoom = map.getBoundsZoom(bounds);
  const seen = states.length === 0 || states.some(({ minzoom }) => zoom >= minzoom - FARTHER_OUT);
  lookAt(seen ? bounds : boundsOf(states.at(-1).bounds));
}

new ResizeObserver(() => map.invalidateSize()).observe($("map"));
