// Which three bands of an image are red, green and blue, and how they are stretched. Images with the same bands share it.
(function (covermap) {
  "use strict";

  const { el, choose } = covermap;
  const CHANNELS = ["Red", "Green", "Blue"];

  /** {bands, stretch, preset} of an image, as chosen or as it comes. */
  covermap.lookOf = function (layer) {
    const chosen = covermap.own(covermap.state.looks, layer.bands.join());
    if (chosen) return chosen;
    const preset = layer.default || 0;
    const first = layer.presets[preset];
    const stretch = layer.stretches.includes(2) ? 2 : layer.stretches[0];
    return { bands: first ? first.bands : layer.bands.slice(0, 1), stretch, preset };
  };

  function change(layer, part) {
    const look = { ...covermap.lookOf(layer), ...part };
    covermap.set({ looks: { ...covermap.state.looks, [layer.bands.join()]: look } });
  }

  const presetOf = (layer, bands) => layer.presets.findIndex((preset) => preset.bands.join() === bands.join());

  function free(layer, look) {
    const names = layer.bands.map((name) => [name, name]);
    const three = CHANNELS.map((_, i) => look.bands[i] || look.bands[0]); // one band is grey
    return CHANNELS.map((channel, i) =>
      choose(`band-${i}`, channel, names, three[i], (name) => {
        const bands = three.map((old, k) => (k === i ? name : old));
        change(layer, { bands, preset: presetOf(layer, bands) });
      }));
  }

  let open = false;

  /** The editor of the image that is on the map, or null. */
  covermap.bandsEditor = function () {
    const layer = covermap.onMap().find((one) => one.kind === "image");
    if (!layer) return null;
    const look = covermap.lookOf(layer);
    const isStatic = covermap.view.static;
    const presets = layer.presets.map((preset, i) => [String(i), preset.name]);
    if (!isStatic && presetOf(layer, look.bands) < 0) presets.push(["-1", "own choice"]);
    const setPreset = (i) => i >= 0 && change(layer, { bands: layer.presets[i].bands, preset: +i });
    const stretches = layer.stretches.map((cut) => [String(cut), cut ? `cut ${cut} % at both ends` : "from least to most"]);
    const before = document.querySelector("details.bands"); // its own event of being opened comes too late
    open = before ? before.open : open;
    return el("details", { className: "bands", open },
      el("summary", { id: "bands" }, "Bands and stretch"),
      presets.length > 1 ? choose("preset", "Colours", presets, String(look.preset), setPreset) : null,
      !isStatic && layer.bands.length > 1 ? free(layer, look) : null,
      isStatic ? null : choose("stretch", "Stretch", stretches, String(look.stretch), (cut) => change(layer, { stretch: +cut })),
      isStatic ? el("p", { className: "hint" }, "A folder without a server holds these colours alone.") : null);
  };
})(window.covermap);
