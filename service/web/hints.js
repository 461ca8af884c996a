// What is known of a photo: the form's fields, filled with what the service read in EXIF, and the search area.

import { $, say } from "./elements.js";
import { map } from "./view.js";

const FARTHEST_M = 1_000_000; // the largest radius of a search area
const form = $("hints");
const FROM_PHOTO = "photo"; // marks a value that came from the photo's EXIF, and goes with it

const fields = () => [...form.querySelectorAll(".pair:not(#circle) input[name]")];

for (const input of fields()) input.oninput = () => delete input.dataset[FROM_PHOTO];

/** Show what the service read in a photo; fields that the user filled stay. */
export function showRead({ values, used, disputed }) {
  for (const input of fields()) {
    const read = values[input.name] !== undefined && (used[input.name] === "exif" || input.name in disputed);
    if (!read || (input.value !== "" && !input.dataset[FROM_PHOTO])) continue;
    input.value = Number(values[input.name].toFixed(2));
    input.dataset[FROM_PHOTO] = "exif";
  }
}

/** Forget what was read in the photo before. */
export function forgetRead() {
  for (const input of fields()) {
    if (!input.dataset[FROM_PHOTO]) continue;
    input.value = "";
    delete input.dataset[FROM_PHOTO];
  }
}

/** The form as the service wants it: no empty fields, none that it reads in the photo itself. */
export function question(file) {
  const asked = new FormData();
  asked.set("image", file);
  for (const input of fields()) if (input.value !== "" && !input.dataset[FROM_PHOTO]) asked.set(input.name, input.value);
  asked.set("effort", form.elements.effort.value);
  asked.set("matches", "true");
  asked.set("use_exif", $("use-exif").checked);
  for (const [name, value] of Object.entries(area())) asked.set(name, value);
  return asked;
}

function area() {
  if ($("area").value === "view") {
    const centre = map.getCenter();
    const radius_m = Math.min(FARTHEST_M, centre.distanceTo(map.getBounds().getNorthEast()));
    return { prior_lat: centre.lat, prior_lon: centre.wrap().lng, prior_radius_m: radius_m };
  }
  if ($("area").value !== "circle") return {};
  return Object.fromEntries(circleInputs().map((input) => [input.name, input.value]).filter(([, value]) => value !== ""));
}

// ---- a circle, typed or drawn
const circle = L.circle([0, 0], { radius: 1, weight: 1.5, dashArray: "6 4", fillOpacity: 0.04, interactive: false });
const circleInputs = () => [...$("circle").querySelectorAll("input")];

function showCircle() {
  const [lat, lon, radius_m] = circleInputs().map((input) => (input.value === "" ? NaN : Number(input.value)));
  const whole = $("area").value === "circle" && [lat, lon, radius_m].every(Number.isFinite);
  if (whole) circle.setLatLng([lat, lon]).setRadius(radius_m).addTo(map);
  else circle.remove();
}

function setCircle(centre, radius_m) {
  const at = centre.wrap();
  const values = [at.lat.toFixed(6), at.lng.toFixed(6), Math.max(1, radius_m).toFixed(0)];
  circleInputs().forEach((input, i) => (input.value = values[i]));
  showCircle();
}

/** Two clicks on the map: the centre, then the edge. */
function draw() {
  say("Click the centre of the search area on the map.");
  map.getContainer().classList.add("drawing");
  map.once("click", ({ latlng: centre }) => {
    say("Click its edge.");
    const stretch = ({ latlng }) => setCircle(centre, centre.distanceTo(latlng));
    map.on("mousemove", stretch);
    map.once("click", (edge) => {
      map.off("mousemove", stretch);
      stretch(edge);
      map.getContainer().classList.remove("drawing");
      say("");
    });
  });
}

$("area").onchange = () => {
  $("circle").hidden = $("area").value !== "circle";
  showCircle();
};
for (const input of circleInputs()) input.oninput = showCircle;
$("draw").onclick = draw;
