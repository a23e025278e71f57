// Decoded data tiles: fetched once, kept as numbers, painted as often as wanted.
(function (covermap) {
  "use strict";

  const KEPT = 400; // tiles; 64 kB each
  const kept = new Map(); // key -> promise of numbers, the longest unused first
  const waiting = Object.create(null); // key -> resolve, of static tiles

  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });

  /** Static tiles are scripts that call this, because file:// has no fetch. */
  covermap.tile = function (key, dataUrl) {
    const bytes = Uint8Array.from(atob(dataUrl.slice(dataUrl.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    waiting[key](new Blob([bytes], { type: "image/png" }));
    delete waiting[key];
  };

  function fromScript(key) {
    return new Promise((resolve, reject) => {
      waiting[key] = resolve;
      const script = covermap.el("script", { src: `tiles/${key}.js` });
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`tiles/${key}.js is missing; write the folder again`));
      document.head.append(script);
    });
  }

  async function fromServer(key, layer, part) {
    const query = [part === null ? "" : `class=${part}`, layer.version ? `v=${layer.version}` : ""].filter(Boolean).join("&");
    const answer = await covermap.ask(`tiles/${key}.png${query ? "?" + query : ""}`);
    return answer.status === 204 ? null : answer.blob();
  }

  /** Numbers of a PNG: its grey, or 256 x red + green of a layer with more classes than a byte holds. */
  async function decode(blob, side, wide) {
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    canvas.width = canvas.height = side;
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const rgba = context.getImageData(0, 0, side, side).data;
    const values = wide ? new Uint16Array(side * side) : new Uint8Array(side * side);
    for (let i = 0; i < values.length; i++) values[i] = wide ? rgba[4 * i] * 256 + rgba[4 * i + 1] : rgba[4 * i];
    return values;
  }

  /** More classes than a byte tells apart are stored in two; their "no data" is 65535. */
  covermap.isWide = (layer) => (layer.kind === "classes" || layer.kind === "change") && layer.classes.length > 254;

  /** Does the layer have this tile? Outside of its bounds, and in what a static folder left out, it has none. */
  covermap.hasTile = function (frame, layer, z, x, y) {
    const side = frame.tile_px * Math.pow(2, frame.native - z);
    const [left, top, right, bottom] = layer.bounds;
    if (x * side >= right || (x + 1) * side <= left || y * side >= bottom || (y + 1) * side <= top) return false;
    if (!layer.tiles) return true;
    return (layer.tiles[z] || []).some((r) => x >= r[0] && x <= r[1] && y >= r[2] && y <= r[3]);
  };

  covermap.forgetTiles = () => kept.clear();

  /** Promise of the numbers (tile_px squared, row by row) of a tile, or of null where there are none. */
  covermap.numbers = function (layer, z, x, y, part = null) {
    const { frame, static: isStatic } = covermap.view;
    if (!covermap.hasTile(frame, layer, z, x, y)) return Promise.resolve(null);
    const key = isStatic && part !== null ? `${layer.id}/${part}/${z}/${x}/${y}` : `${layer.id}/${z}/${x}/${y}`;
    const name = `${key}?${part}`;
    let found = kept.get(name);
    kept.delete(name);
    if (!found) {
      const blob = isStatic ? fromScript(key) : fromServer(key, layer, part);
      found = blob.then((got) => got && decode(got, frame.tile_px, covermap.isWide(layer)));
      found.catch(() => kept.get(name) === found && kept.delete(name)); // asked for again next time
    }
    kept.set(name, found);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return found;
  };
})(window.covermap);
