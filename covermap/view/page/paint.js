// From the numbers of a tile to its colours: tables of one colour for each number.
(function (covermap) {
  "use strict";

  const bytesOf = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian RGBA

  /** Colours of 0..254 between those of a ramp. */
  function ramp(colours) {
    const stops = colours.map(bytesOf);
    const table = new Uint32Array(256);
    for (let i = 0; i < 255; i++) {
      const place = (i / 254) * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      const mixed = stops[low].map((value, k) => Math.round(value + (stops[low + 1][k] - value) * (place - low)));
      table[i] = packed(mixed);
    }
    return table;
  }

  /** Is the class of a change layer let through by the change filter? */
  covermap.passes = function (entry) {
    const { changedOnly, from, to } = covermap.state;
    return (!changedOnly || entry.changed) && (!from || entry.from === from) && (!to || entry.to === to);
  };

  covermap.filters = () => covermap.state.changedOnly || Boolean(covermap.state.from) || Boolean(covermap.state.to);

  covermap.isHidden = (layer, index) => (covermap.own(covermap.state.hidden, layer.id) || []).includes(index);

  /** Colour of each number of a data layer as it is to be drawn now; 0 draws nothing. */
  covermap.colours = function (layer) {
    if (layer.kind === "number" || layer.kind === "probabilities") return ramp(layer.colours);
    const table = new Uint32Array(covermap.isWide(layer) ? 65536 : 256);
    layer.classes.forEach((entry, i) => {
      const drawn = !covermap.isHidden(layer, i) && (layer.kind !== "change" || covermap.passes(entry));
      if (drawn) table[i] = packed(bytesOf(entry.colour));
    });
    return table;
  };

  /** 1 for each number of the change layer that the filter lets through. */
  covermap.maskTable = function (change) {
    const table = new Uint8Array(covermap.isWide(change) ? 65536 : 256);
    change.classes.forEach((entry, i) => (table[i] = covermap.passes(entry) ? 1 : 0));
    return table;
  };

  /** Draw numbers into a canvas of their size; where `mask` (numbers of the change layer) does not pass, nothing. */
  covermap.paint = function (canvas, numbers, colours, mask, passing) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < numbers.length; i++) pixels[i] = mask && !passing[mask[i]] ? 0 : colours[numbers[i]];
    context.putImageData(image, 0, 0);
  };
})(window.covermap);
