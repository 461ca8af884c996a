// The photos that were dropped, and their answers.

import { showAnswer } from "./answer.js";
import { clear } from "./drawing.js";
import { $, complain, el, say } from "./elements.js";
import { exportButtons } from "./exports.js";
import { forgetRead, question, showRead } from "./hints.js";
import { askPatiently } from "./service.js";

const AT_ONCE = 2;
const photos = []; // {file, url, button, state, answer, error}
let chosen = null;

/** Ask where photos were taken; the first of them is shown as soon as it is answered. */
export async function add(files) {
  if (!files.length) return;
  const added = files.map(addOne);
  choose(added[0]);
  const waiting = [...added];
  const work = async () => {
    for (let photo; (photo = waiting.shift()); ) await localize(photo);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

function addOne(file) {
  const photo = { file, url: URL.createObjectURL(file), state: "waiting" };
  const image = el("img", { src: photo.url, alt: file.name });
  image.onerror = () => {
    image.replaceWith(el("span", {}, file.name)); // browsers do not show TIFF
    photo.url = null;
  };
  photo.button = el("button", { type: "button", title: file.name, onclick: () => choose(photo) }, image);
  photos.push(photo);
  $("strip").append(el("li", {}, photo.button));
  $("strip").hidden = photos.length < 2;
  return photo;
}

async function localize(photo) {
  mark(photo, "asking");
  if (photo === chosen) show(photo);
  try {
    photo.answer = await askPatiently("localize", { method: "POST", body: question(photo.file) });
    mark(photo, photo.answer.status);
  } catch (error) {
    photo.error = error;
    mark(photo, "failed");
  }
  if (photo === chosen) show(photo);
  $("photo-exports").hidden = points().length === 0;
}

function mark(photo, state) {
  photo.state = state;
  photo.button.dataset.state = state;
}

function choose(photo) {
  if (photo !== chosen) forgetRead();
  chosen = photo;
  for (const each of photos) each.button.setAttribute("aria-pressed", each === photo);
  show(photo);
}

function show(photo) {
  if (photo.state === "waiting" || photo.state === "asking") {
    clear();
    $("answer").replaceChildren(el("p", { className: "quiet" }, `Looking for ${photo.file.name} …`));
    return;
  }
  say("");
  if (photo.state === "failed") {
    clear();
    $("answer").replaceChildren(el("h2", { className: "not_found" }, "No answer"));
    complain(photo.error);
    return;
  }
  showAnswer(photo.answer, photo.url);
  showRead(photo.answer.query);
}

/** Where each located photo's aircraft was, or the ground at its centre where that is all that is known. */
function points() {
  return photos.filter(({ answer }) => answer?.status === "located").map(({ file, answer: { position, camera } }) => ({
    name: file.name,
    time: null,
    lat: (camera ?? position).lat,
    lon: (camera ?? position).lon,
    height_m: camera?.height_m ?? null,
    accuracy_m: (camera ?? position).accuracy_m,
    confidence: position.confidence,
    what: camera ? "camera" : "ground at the photo's centre",
  }));
}

$("hints").onsubmit = (event) => {
  event.preventDefault();
  if (chosen) localize(chosen).catch(complain);
  else say("Choose a photo first.");
};
$("photo-exports").append("Save what was located: ", ...exportButtons("photos", points));
