// The photo beside the ground of a candidate, turned alike, and the details that were found in both.

import { complain, el } from "./elements.js";
import { drawGround } from "./ground.js";
import { ask } from "./service.js";

const SIDE_PX = 320; // drawn at twice what is shown, for sharp screens
const WIDER = 1.6; // ground that is shown, for that of the photo
const MOST_LINES = 60;
const SVG = "http://www.w3.org/2000/svg";

/** Photo and ground of a candidate, side by side; ``known`` is its map, undefined for a single picture. */
export function comparison(answer, candidate, photo, known) {
  const canvas = el("canvas", { width: SIDE_PX, height: SIDE_PX });
  const lines = document.createElementNS(SVG, "svg");
  const figure = el(
    "div",
    { className: "compare" },
    el("figure", {}, photo ? el("img", { src: photo, alt: "The photo" }) : el("p", {}, "no preview"), el("figcaption", {}, "Photo")),
    el("figure", {}, canvas, el("figcaption", {}, `${candidate.rank}. ${candidate.map ?? candidate.tile_id}`)),
    lines,
  );
  const first = candidate.rank === 1;
  const heading_deg = (first && answer.position?.heading_deg) || 0;
  const drawn = known
    ? drawGround(canvas, known, first ? candidate : candidate.tile, side(answer, candidate), heading_deg)
    : drawPicture(canvas, candidate.tile_id);
  drawn.then((project) => project && first && outline(canvas, answer.footprint, project), complain);
  const toggle = el("button", { type: "button", className: "plain" }, "Show the matches");
  toggle.onclick = () => {
    const shown = lines.childElementCount > 0;
    toggle.textContent = shown ? "Show the matches" : "Hide the matches";
    if (shown) lines.replaceChildren();
    else drawn.then((project) => connect(lines, figure, answer, project), complain);
  };
  const canShow = first && known && photo && answer.matches?.length;
  return el("div", {}, figure, canShow ? toggle : null);
}

/** Ground that a comparison shows: that of the photo when it is known, else that of the candidate's tile. */
function side({ footprint, position }, candidate) {
  const width_m = candidate.tile.gsd_m * 224;
  if (candidate.rank !== 1 || !position || !footprint || footprint.includes(null)) return width_m * WIDER;
  const far = footprint.map((corner) => L.latLng(corner).distanceTo(L.latLng(position.lat, position.lon)));
  return Math.min(2 * Math.max(...far), 4 * width_m) * 1.1;
}

async function drawPicture(canvas, id) {
  const path = id.split("/").map(encodeURIComponent).join("/");
  const picture = await createImageBitmap(await (await ask(`gallery/tiles/${path}/image`)).blob());
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return null;
}

function outline(canvas, footprint, project) {
  if (!footprint || footprint.includes(null)) return;
  const context = canvas.getContext("2d");
  context.resetTransform();
  context.beginPath();
  for (const { x, y } of footprint.map(project)) context.lineTo(x, y);
  context.closePath();
  context.lineWidth = 2;
  context.strokeStyle = "white";
  context.stroke();
}

/** Lines from details of the photo to the same on the ground. */
function connect(lines, figure, { query, matches }, project) {
  const from = figure.getBoundingClientRect();
  const boxes = ["img", "canvas"].map((tag) => figure.querySelector(tag).getBoundingClientRect());
  const [photo, ground] = boxes.map((box) => ({ left: box.left - from.left, top: box.top - from.top, width: box.width, height: box.height }));
  const step = Math.max(1, Math.floor(matches.length / MOST_LINES));
  for (const { x, y, lat, lon } of matches.filter((_, i) => i % step === 0)) {
    const line = document.createElementNS(SVG, "line");
    const there = project([lat, lon]);
    line.setAttribute("x1", photo.left + (x / query.width) * photo.width);
    line.setAttribute("y1", photo.top + (y / query.height) * photo.height);
    line.setAttribute("x2", ground.left + (there.x / SIDE_PX) * ground.width);
    line.setAttribute("y2", ground.top + (there.y / SIDE_PX) * ground.height);
    lines.append(line);
  }
}
