// What the service says of one photo, in words.

import { comparison } from "./compare.js";
import { $, el, facts, latLon, metres, percent } from "./elements.js";
import { drawAnswer, setOpacity } from "./drawing.js";
import { mapNamed } from "./maps.js";

const STATUS = {
  located: "Located",
  ambiguous: "Ambiguous",
  not_found: "Not found",
};
const MEANING = {
  located: null,
  ambiguous: "Another place explains the photo nearly as well. A search area, or what is known of the camera, may decide.",
  not_found: "The photo probably shows a place outside these maps.",
};
const NAMES = { heading_deg: "heading", altitude_m: "height", hfov_deg: "field of view", pitch_deg: "pitch", roll_deg: "roll" };
const named = (field) => NAMES[field] ?? field;

let opacity = 0.85;

/** Show an answer in the panel and on the map; ``photo`` is the photo's address, null when it cannot be shown. */
export function showAnswer(answer, photo) {
  const { status, position, camera, camera_missing, query } = answer;
  $("answer").replaceChildren(
    el("h2", { className: status }, STATUS[status]),
    ...(MEANING[status] ? [el("p", {}, MEANING[status])] : []),
    ...(position ? [coordinates(position)] : []),
    ...(position && photo && answer.footprint ? [slider()] : []),
    ...(camera ? [aircraft(camera)] : []),
    ...(camera_missing && position ? [el("p", { className: "quiet" }, `Of the aircraft: ${camera_missing}`)] : []),
    ...hints(query),
    candidates(answer, photo),
    details(answer),
  );
  drawAnswer(answer, photo, opacity);
}

function coordinates(position) {
  const copy = el("button", { type: "button", className: "plain", title: "Copy" }, "Copy");
  copy.onclick = () => navigator.clipboard?.writeText(latLon(position));
  return el(
    "div",
    {},
    el("p", { className: "big" }, latLon(position), " ", copy),
    el("p", { className: "quiet" }, `ground at the photo's centre, ±\u00a0${metres(position.accuracy_m)}, ${percent(position.confidence)} sure`),
  );
}

function slider() {
  const input = el("input", { type: "range", min: 0, max: 1, step: 0.01, value: opacity });
  input.oninput = () => setOpacity((opacity = Number(input.value)));
  return el("label", { className: "slider" }, "Photo on the map ", input);
}

function aircraft(camera) {
  const turned = (value) => `${value.toFixed(0)}°`;
  return facts([
    ["Aircraft", `${latLon(camera)}, ±\u00a0${metres(camera.accuracy_m)}`],
    ["Height", camera.height_m === null ? null : `${metres(camera.height_m)} above ground`],
    ["Looks", `${turned(camera.heading_deg)}, pitch ${turned(camera.pitch_deg)}, roll ${turned(camera.roll_deg)}`],
    ["Field of view", camera.hfov_deg === null ? null : `${camera.hfov_deg.toFixed(1)}°`],
  ]);
}

function hints({ disputed, unused }) {
  const sentences = [
    ...Object.entries(disputed).map(([name, why]) => ["warn", `The photo contradicts the ${named(name)}: ${why}`]),
    ...Object.entries(unused).map(([name, why]) => ["quiet", `The ${named(name)} did not count: ${why}`]),
  ];
  return sentences.map(([className, text]) => el("p", { className }, text));
}

function candidates(answer, photo) {
  if (!answer.candidates.length) return el("p", {}, "Nothing of the maps lies in the search area.");
  const beside = el("div");
  const buttons = answer.candidates.map((candidate) => {
    const title = `${candidate.tile_id}: ${candidate.inliers ?? "no"} details found, ${percent(candidate.confidence)} sure`;
    const button = el("button", { type: "button", className: "plain", title }, `${candidate.rank}`);
    button.onclick = () => {
      buttons.forEach((each) => each.setAttribute("aria-pressed", each === button));
      beside.replaceChildren(comparison(answer, candidate, photo, mapNamed(candidate.map)), el("p", { className: "quiet" }, title));
    };
    return button;
  });
  buttons[0].click();
  return el("div", {}, el("p", { className: "row" }, "Beside candidate", ...buttons), beside);
}

function details({ query, timing_ms, searched_tiles, model_id }) {
  const used = Object.entries(query.used).map(([name, source]) => `${named(name)} (${query.readings[name] ?? source})`);
  const steps = Object.entries(timing_ms).map(([step, ms]) => `${step} ${ms.toFixed(0)}`);
  return el(
    "details",
    {},
    el("summary", {}, "How it was found"),
    facts([
      ["Used", used.length ? used.join(", ") : "the photo alone"],
      ["Looks", `${query.looks}`],
      ["Searched", `${searched_tiles} windows`],
      ["Model", model_id],
      ["Time, ms", steps.join(", ")],
    ]),
  );
}
