// A flight: photos or frames sent to a track in their order, its path on the map, replayed and saved.

import { aircraft, clear, drawAnswer } from "./drawing.js";
import { $, colour, el, latLon, metres, say } from "./elements.js";
import { exportButtons } from "./exports.js";
import { framesOf } from "./files.js";
import { question } from "./hints.js";
import { askJson, askPatiently } from "./service.js";
import { lookAt, map, place } from "./view.js";

const REPLAY_MS = 700; // a photo's time in the replay
const PHOTO_OPACITY = 0.6;
const USE = {
  fused: "the photo was found and fused",
  gated: "the photo's answer did not fit the flight and was left out",
  lost: "the photo shows no known place; the position is predicted",
};

const path = L.layerGroup().addTo(map);
let steps = []; // {name, url, answer}
let running = new AbortController();
let playing = null;

/** Follow the flight that these photos (ordered by name) or videos show. */
export async function fly(photos, videos) {
  stop();
  running = new AbortController();
  const { signal } = running;
  steps.forEach(({ url }) => URL.revokeObjectURL(url));
  steps = [];
  clear();
  path.clearLayers();
  $("replay").hidden = true;
  const options = new URLSearchParams({ max_speed_m_s: $("max-speed").value });
  const track = await askJson("tracks", { method: "POST", body: options, signal });
  try {
    for await (const frame of framesInOrder(photos, videos, signal)) await send(track.id, frame, signal);
  } finally {
    say(steps.length ? "" : "Nothing was sent.");
  }
}

async function* framesInOrder(photos, videos, signal) {
  const byName = new Intl.Collator(undefined, { numeric: true });
  for (const file of photos.sort((a, b) => byName.compare(a.name, b.name))) yield { file, time_s: null };
  for (const video of videos) yield* framesOf(video, Number($("every").value), signal);
}

async function send(id, { file, time_s }, signal) {
  say(`Looking for ${file.name} …`);
  const answer = await next(id, file, time_s, signal);
  steps.push({ name: file.name, url: URL.createObjectURL(file), answer });
  $("replay").hidden = false;
  $("when").max = steps.length - 1;
  $("when").value = steps.length - 1;
  drawPath();
  show(steps.length - 1, false);
}

/** The answer to the next photo. The service reads its time in EXIF; photos without one are so many seconds apart. */
async function next(id, file, time_s, signal) {
  const form = question(file);
  if (time_s !== null) form.set("timestamp", time_s);
  try {
    return await askPatiently(`tracks/${encodeURIComponent(id)}/localize`, { method: "POST", body: form, signal });
  } catch (error) {
    if (error.kind !== "missing-parameter" || time_s !== null) throw error;
    return next(id, file, steps.length * Number($("every").value), signal);
  }
}

/** The path so far: a line through the track's positions, a dot for each photo by what became of it. */
function drawPath() {
  path.clearLayers();
  const known = steps.filter(({ answer }) => answer.position);
  L.polyline(known.map(({ answer }) => place(answer.position)), { pane: "answer", color: colour("sky"), weight: 2.5 }).addTo(path);
  for (const { answer, name } of known) {
    const color = colour(answer.use === "fused" ? "accent" : "warn");
    const dot = L.circleMarker(place(answer.position), { pane: "answer", color, radius: 4, fillOpacity: 1, weight: 0 });
    dot.bindTooltip(el("span", {}, `${name}: ${USE[answer.use]}`)).addTo(path);
  }
}

/** Show one photo of the flight where the track puts it. */
function show(i, look = true) {
  const { name, url, answer } = steps[i];
  const { position, velocity } = answer;
  drawAnswer({ ...answer.photo, candidates: [] }, url, PHOTO_OPACITY);
  const speed = velocity ? `, ${velocity.speed_m_s.toFixed(1)} m/s towards ${velocity.course_deg.toFixed(0)}°` : "";
  const where = position ? `${latLon(position)}, ± ${metres(position.accuracy_m)}${speed}` : "no position";
  $("flight-now").replaceChildren(
    el("strong", {}, `${i + 1} of ${steps.length}: ${name}`),
    el("br"),
    where,
    el("br"),
    el("span", { className: answer.use === "fused" ? "quiet" : "warn" }, USE[answer.use]),
  );
  if (position && answer.use !== "fused") {
    L.marker(place(position), { icon: aircraft(velocity?.course_deg ?? 0), interactive: false }).addTo(path);
  }
  if (!look) lookAt(L.latLngBounds(path.getLayers().flatMap((layer) => layer.getLatLngs?.() ?? [])).pad(0.4), { maxZoom: 19 });
}

function stop() {
  running.abort();
  clearInterval(playing);
  playing = null;
  $("play").textContent = "Play";
}

function play() {
  if (playing !== null) return stop();
  let i = 0;
  $("play").textContent = "Pause";
  playing = setInterval(() => {
    if (i >= steps.length) return stop();
    $("when").value = i;
    show(i++);
  }, REPLAY_MS);
}

function points() {
  return steps.filter(({ answer }) => answer.position).map(({ name, answer: { position, timestamp_s, photo } }) => ({
    name,
    time: timestamp_s > 1e8 ? new Date(timestamp_s * 1000).toISOString() : null, // else seconds of a video
    lat: position.lat,
    lon: position.lon,
    height_m: photo.camera?.height_m ?? null,
    accuracy_m: position.accuracy_m,
    confidence: position.confidence,
    what: position.reference,
  }));
}

$("when").oninput = () => show(Number($("when").value));
$("play").onclick = play;
$("stop").onclick = stop;
$("flight-exports").append("Save the flight: ", ...exportButtons("flight", points));
