// The photo laid on the map: an image whose four corners are pinned, which Leaflet's own overlay cannot do.

/**
 * The CSS matrix that takes the corners of a ``width`` × ``height`` box (clockwise from its top left) to four points.
 *
 * The homography of the unit square is solved in closed form (Heckbert, "Fundamentals of Texture Mapping", 1989).
 */
function matrixTo(width, height, [a, b, c, d]) {
  const [dx1, dy1, dx2, dy2] = [b.x - c.x, b.y - c.y, d.x - c.x, d.y - c.y];
  const [sx, sy] = [a.x - b.x + c.x - d.x, a.y - b.y + c.y - d.y];
  const det = dx1 * dy2 - dx2 * dy1;
  const g = (sx * dy2 - dx2 * sy) / det;
  const h = (dx1 * sy - sx * dy1) / det;
  const columns = [
    [b.x - a.x + g * b.x, b.y - a.y + g * b.y, 0, g].map((value) => value / width),
    [d.x - a.x + h * d.x, d.y - a.y + h * d.y, 0, h].map((value) => value / height),
    [0, 0, 1, 0],
    [a.x, a.y, 0, 1],
  ];
  return `matrix3d(${columns.flat().join()})`;
}

const BOX = 100; // pixels of a side before it is laid

export const Pinned = L.ImageOverlay.extend({
  initialize(url, corners, options) {
    this._corners = corners.map((corner) => L.latLng(corner));
    L.ImageOverlay.prototype.initialize.call(this, url, L.latLngBounds(corners), { className: "pinned", ...options });
  },
  _reset() {
    this._lay((corner) => this._map.latLngToLayerPoint(corner));
  },
  _animateZoom({ zoom, center }) {
    this._lay((corner) => this._map._latLngToNewLayerPoint(corner, zoom, center));
  },
  _lay(project) {
    const style = this._image.style;
    style.width = style.height = `${BOX}px`;
    style.transform = matrixTo(BOX, BOX, this._corners.map(project));
  },
});
