// An answer on the map: the photo on its ground, the ground point, the aircraft, and how sure both are.

import { colour, el } from "./elements.js";
import { Pinned } from "./overlay.js";
import { lookAt, map, pairs, place } from "./view.js";

const FAR_M = 3000; // a corner near the horizon lies kilometres away: it is left out of what the view shows
const SURROUNDINGS = 0.7; // of the answer's size, seen on each side of it

const answers = L.featureGroup().addTo(map);
let pinned = null;

export const clear = () => {
  answers.clearLayers();
  pinned = null;
};

/** How much of the photo covers the map, 0 to 1. */
export const setOpacity = (share) => pinned?.setOpacity(share);

/** Draw an answer and look at it; ``url`` is the photo's, null when the browser cannot show it. */
export function drawAnswer({ status, position, camera, footprint, candidates }, url, opacity) {
  clear();
  const centre = position ?? candidates[0]; // a prior may leave no candidate
  if (!centre) return;
  const good = colour(status === "located" ? "accent" : "warn");
  map.setView([centre.lat, centre.lon], map.getZoom(), { animate: false }); // first, so that places are near it
  const bounds = L.latLngBounds([]);
  if (status !== "located") candidates.forEach((candidate) => drawTile(candidate, bounds));
  if (position) {
    drawPhoto(footprint, url, opacity, good, bounds, place(position));
    drawPoint(place(position), position.accuracy_m, good, bounds, "the ground at the photo's centre");
    if (camera) drawCamera(camera, place(position), bounds);
  }
  lookAt(bounds.pad(SURROUNDINGS));
}

function drawTile(candidate, bounds) {
  const style = { pane: "answer", color: colour("warn"), weight: candidate.rank === 1 ? 2.5 : 1.25, fill: false };
  const shape = L.polygon(pairs(candidate.tile.corners), style).addTo(answers);
  shape.bindTooltip(el("span", {}, `${candidate.rank}. ${candidate.tile_id}`));
  if (candidate.rank === 1) bounds.extend(shape.getBounds());
}

function drawPhoto(footprint, url, opacity, color, bounds, centre) {
  if (!footprint) return;
  const corners = pairs(footprint.filter((corner) => corner !== null));
  corners.filter((corner) => map.distance(corner, centre) < FAR_M).forEach((corner) => bounds.extend(corner));
  if (corners.length === 4 && url) pinned = new Pinned(url, corners, { pane: "photo", opacity }).addTo(answers);
  const shape = corners.length === 4 ? L.polygon : L.polyline; // one that shows the horizon has no end
  shape(corners, { pane: "answer", color, weight: 1.5, fill: false, interactive: false }).addTo(answers);
}

function drawPoint(at, accuracy_m, color, bounds, what) {
  const circle = L.circle(at, { pane: "answer", color, radius: accuracy_m, weight: 1.5, fillOpacity: 0.12 }).addTo(answers);
  const dot = L.circleMarker(at, { pane: "answer", color, radius: 4, fillOpacity: 1, weight: 0 }).addTo(answers);
  dot.bindTooltip(el("span", {}, `${what}, ± ${accuracy_m.toFixed(1)} m`));
  bounds.extend(circle.getBounds());
}

function drawCamera(camera, ground, bounds) {
  const at = place(camera);
  const color = colour("sky");
  L.polyline([at, ground], { pane: "answer", color, weight: 1.5, dashArray: "4 5", interactive: false }).addTo(answers);
  drawPoint(at, camera.accuracy_m, color, bounds, "the aircraft");
  L.marker(at, { icon: aircraft(camera.heading_deg), interactive: false }).addTo(answers);
}

/** An arrow that shows where the aircraft's camera faces. */
export function aircraft(heading_deg) {
  const arrow = el("i", { className: "aircraft" });
  arrow.style.transform = `rotate(${heading_deg}deg)`;
  return L.divIcon({ html: arrow, className: "", iconSize: [22, 22] });
}
