// The page: what the user does, and which part of it answers.

import { $, complain, say } from "./elements.js";
import { sorted } from "./files.js";
import { fly } from "./flight.js";
import { addMap, followRunning, refresh } from "./maps.js";
import { add } from "./photos.js";
import { useKey } from "./service.js";

const TABS = ["photos", "flight", "maps"];

function show(tab) {
  for (const name of TABS) {
    $(name).hidden = name !== tab;
    $(`tab-${name}`).setAttribute("aria-selected", name === tab);
  }
}

/** Everything that can be dropped: maps are added, a video is a flight, photos are localized one by one. */
async function take(files, flight = false) {
  say("");
  const { photos, videos, maps } = await sorted(files);
  if (maps.length) show("maps");
  for (const map of maps) await addMap(map);
  if (flight || videos.length) {
    show("flight");
    await fly(photos, videos);
  } else if (photos.length) {
    show("photos");
    await add(photos);
  }
}

async function start() {
  await refresh({ look: true });
  await followRunning();
}

for (const name of TABS) $(`tab-${name}`).onclick = () => show(name);
$("photo").onchange = () => take([...$("photo").files]).catch(complain);
$("flight-files").onchange = () => take([...$("flight-files").files], true).catch(complain);
$("map-file").onchange = () => addMap($("map-file").files[0]).catch(complain);
for (const id of ["photo", "flight-files", "map-file"]) $(id).onclick = () => ($(id).value = ""); // the same file may be chosen again
$("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey($("key").value);
  start().catch(complain);
};
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  take([...event.dataTransfer.files], !$("flight").hidden).catch(complain);
};
start().catch(complain);
