// Answers as files that other programs read. A point is {name, time, lat, lon, height_m, accuracy_m, confidence, what};
// ``time`` is ISO 8601 or null, ``what`` says which point it is: the camera's, or the ground at the photo's centre.

import { el } from "./elements.js";

const XML = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };
const xml = (text) => String(text).replace(/[&<>"']/g, (sign) => XML[sign]);
const FIELDS = ["name", "time", "lat", "lon", "height_m", "accuracy_m", "confidence", "what"];

function csv(points) {
  // a leading apostrophe keeps spreadsheets from taking a file's name for a formula
  const safe = (value) => (typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : (value ?? ""));
  const cell = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  return [FIELDS.join(), ...points.map((point) => FIELDS.map((name) => cell(safe(point[name]))).join())].join("\n") + "\n";
}

function geojson(points) {
  const feature = (geometry, properties) => ({ type: "Feature", geometry, properties });
  const features = points.map(({ lat, lon, ...properties }) => feature({ type: "Point", coordinates: [lon, lat] }, properties));
  if (points.length > 1) {
    const coordinates = points.map(({ lat, lon }) => [lon, lat]);
    features.push(feature({ type: "LineString", coordinates }, { name: "path" }));
  }
  return JSON.stringify({ type: "FeatureCollection", features }, null, 1);
}

// heights are above the ground, which KML can say and GPX, whose elevations are above the sea, cannot
function kml(points) {
  const at = ({ lat, lon, height_m }) => `${lon},${lat},${height_m ?? 0}`;
  const marks = points.map(
    (point) =>
      `<Placemark><name>${xml(point.name)}</name>${point.time ? `<TimeStamp><when>${xml(point.time)}</when></TimeStamp>` : ""}` +
      `<description>${xml(`${point.what}, ± ${point.accuracy_m.toFixed(1)} m`)}</description>` +
      `<Point><altitudeMode>relativeToGround</altitudeMode><coordinates>${at(point)}</coordinates></Point></Placemark>`,
  );
  const path = `<Placemark><name>path</name><LineString><altitudeMode>relativeToGround</altitudeMode><coordinates>${points.map(at).join(" ")}</coordinates></LineString></Placemark>`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>${marks.join("\n")}${points.length > 1 ? path : ""}</Document></kml>\n`;
}

function gpx(points) {
  const time = (point) => (point.time ? `<time>${xml(point.time)}</time>` : "");
  const track = points.map((point) => `<trkpt lat="${point.lat}" lon="${point.lon}">${time(point)}<desc>${xml(point.name)}</desc></trkpt>`);
  return `<?xml version="1.0" encoding="UTF-8"?>\n<gpx version="1.1" creator="aerofix" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>${track.join("\n")}</trkseg></trk></gpx>\n`;
}

const FORMATS = {
  GeoJSON: [geojson, "geojson", "application/geo+json"],
  KML: [kml, "kml", "application/vnd.google-earth.kml+xml"],
  CSV: [csv, "csv", "text/csv"],
  GPX: [gpx, "gpx", "application/gpx+xml"],
};

/** Buttons that save what ``points()`` gives when they are pressed. */
export function exportButtons(name, points) {
  return Object.entries(FORMATS).map(([label, [write, suffix, type]]) =>
    el("button", { type: "button", className: "plain", onclick: () => save(`${name}.${suffix}`, write(points()), type) }, label),
  );
}

function save(name, text, type) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
