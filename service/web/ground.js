// Pictures of the ground, drawn from the tiles of a map: what stands beside a photo.

import { ask } from "./service.js";
import { tilePath } from "./view.js";

const TILE = 256;
const MOST_TILES = 36;
const EQUATOR_M = 40_075_016.686; // of Web Mercator's sphere

/** Web Mercator, the whole world from 0 to 1, y down. */
const mercator = (lat, lon) => {
  const sine = Math.sin((lat * Math.PI) / 180);
  return { x: lon / 360 + 0.5, y: 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI) };
};

/**
 * Draw a square of ground into a canvas.
 *
 * @param {object} known the map, as the service lists it.
 * @param {{lat, lon}} centre of the square.
 * @param {number} side_m its side on the ground.
 * @param {number} heading_deg what is up.
 * @returns {Promise<function>} takes ``[lat, lon]`` to pixels of the canvas.
 */
export async function drawGround(canvas, known, centre, side_m, heading_deg) {
  const world_m = EQUATOR_M * Math.cos((centre.lat * Math.PI) / 180);
  const scale = (canvas.width * world_m) / side_m; // canvas pixels for the whole world
  const middle = mercator(centre.lat, centre.lon);
  const context = canvas.getContext("2d");
  context.resetTransform();
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((-heading_deg * Math.PI) / 180);
  const matrix = context.getTransform();
  let zoom = Math.min(known.maxzoom, Math.max(known.minzoom, Math.round(Math.log2(scale / TILE))));
  let wanted = tilesRound(middle, canvas.width / scale, zoom);
  while (wanted.length > MOST_TILES && zoom > known.minzoom) wanted = tilesRound(middle, canvas.width / scale, --zoom);
  const size = scale / 2 ** zoom;
  await Promise.all(
    wanted.map(async ([x, y]) => {
      const picture = await createImageBitmap(await (await ask(tilePath(known.name, zoom, x, y))).blob());
      context.drawImage(picture, x * size - middle.x * scale, y * size - middle.y * scale, size, size);
    }),
  );
  return ([lat, lon]) => {
    const at = mercator(lat, lon);
    return matrix.transformPoint(new DOMPoint((at.x - middle.x) * scale, (at.y - middle.y) * scale));
  };
}

/** Numbers of the tiles that a square shows, however it is turned. */
function tilesRound(middle, side, zoom) {
  const count = 2 ** zoom;
  const reach = side * Math.SQRT1_2;
  const range = (value) => {
    const first = Math.floor((value - reach) * count);
    return Array.from({ length: Math.floor((value + reach) * count) - first + 1 }, (_, i) => first + i);
  };
  return range(middle.x).flatMap((x) => range(middle.y).map((y) => [x, y])).filter(([x, y]) => x >= 0 && y >= 0 && x < count && y < count);
}
