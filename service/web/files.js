// What was dropped: photos, a map, or a video, whose frames become photos.

const MAP_NAMES = /\.(mbtiles|gpkg|kmz|zip|jp2)$/i;
const GEO_TAGS = new Set([33550, 33922, 34264]); // pixel scale, tie points, transformation (OGC GeoTIFF 1.1, 7.1)
const FRAME_PX = 1920; // longest side of a frame: more does not help to find it
const JPEG_QUALITY = 0.92;

/** Sort files into photos, videos and maps. */
export async function sorted(files) {
  const kinds = { photos: [], videos: [], maps: [] };
  for (const file of files) {
    if (file.type.startsWith("video/")) kinds.videos.push(file);
    else if (MAP_NAMES.test(file.name) || (await isGeoTiff(file))) kinds.maps.push(file);
    else kinds.photos.push(file);
  }
  return kinds;
}

/** Whether a file is a TIFF whose first directory says where it lies. */
async function isGeoTiff(file) {
  const read = async (from, length) => new DataView(await file.slice(from, from + length).arrayBuffer());
  const head = await read(0, 16);
  if (head.byteLength < 16 || ![0x4949, 0x4d4d].includes(head.getUint16(0))) return false;
  const little = head.getUint16(0) === 0x4949;
  const big = head.getUint16(2, little) === 43; // BigTIFF
  const at = big ? Number(head.getBigUint64(8, little)) : head.getUint32(4, little);
  const [countSize, entrySize] = big ? [8, 20] : [2, 12];
  const directory = await read(at, countSize + 100 * entrySize);
  for (let tag = countSize; tag + 2 <= directory.byteLength; tag += entrySize) {
    if (GEO_TAGS.has(directory.getUint16(tag, little))) return true;
  }
  return false;
}

/**
 * The frames of a video, one every ``every_s`` seconds, as JPEG files.
 *
 * @yields {{file: File, time_s: number}} of the beginning of the video.
 */
export async function* framesOf(video, every_s, signal) {
  const element = Object.assign(document.createElement("video"), { muted: true, preload: "auto" });
  const happens = (name) =>
    new Promise((done, fail) => {
      element.addEventListener(name, done, { once: true, signal });
      const refused = `This browser cannot read ${video.name}. Try: aerofix localize ${video.name}`;
      element.addEventListener("error", () => fail(new Error(refused)), { once: true });
    });
  element.src = URL.createObjectURL(video);
  try {
    await happens("loadeddata");
    const scale = Math.min(1, FRAME_PX / Math.max(element.videoWidth, element.videoHeight));
    const canvas = new OffscreenCanvas(Math.round(element.videoWidth * scale), Math.round(element.videoHeight * scale));
    for (let time_s = 0; time_s < element.duration; time_s += every_s) {
      signal.throwIfAborted();
      if (time_s > 0) {
        const seeked = happens("seeked");
        element.currentTime = time_s;
        await seeked;
      }
      canvas.getContext("2d").drawImage(element, 0, 0, canvas.width, canvas.height);
      const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
      yield { file: new File([blob], `${video.name} ${time_s.toFixed(1)} s.jpg`, { type: "image/jpeg" }), time_s };
    }
  } finally {
    URL.revokeObjectURL(element.src);
  }
}
