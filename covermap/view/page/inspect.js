// The values under a click: class, confidence, the three likeliest classes, from and to, bands, coordinates.
(function (covermap) {
  "use strict";

  const { $, el, button } = covermap;
  const NEAR_PX = 9; // of the screen, to a sample point
  let map;
  let outline = null;
  let turn = 0;

  /** The outline of the pixel of side `size` (frame px) that holds a place, in Leaflet's coordinates. */
  covermap.pixelBounds = function (layer, x, y) {
    const size = (layer && layer.pixel) || 1;
    const [left, top] = layer && layer.bounds ? layer.bounds : [0, 0];
    const corner = [left + Math.floor((x - left) / size) * size, top + Math.floor((y - top) / size) * size];
    return covermap.boundsOf([corner[0], corner[1], corner[0] + size, corner[1] + size]);
  };

  /** What a tile's number (one of 255) stands for, no finer than it can tell. */
  function scaled(layer, number) {
    if (number === 0 || number === 254) return number ? layer.high : layer.low;
    const unit = Math.pow(10, Math.ceil(Math.log10((layer.high - layer.low) / 254)));
    return +(Math.round((layer.low + (number / 254) * (layer.high - layer.low)) / unit) * unit).toPrecision(6);
  }

  /** The ends of a ramp hold what lies beyond them too; but no percentage is below 0, and only some are above 100. */
  function sideOf({ unit, low, high }, number) {
    if (number === 0) return unit === "%" && low === 0 ? "" : "≤ ";
    return number === 254 && !(unit === "%" && high === 100) ? "≥ " : "";
  }

  /** Without a server: the numbers of the native tiles. */
  async function fromTiles(x, y) {
    const { frame } = covermap.view;
    const side = frame.tile_px;
    const at = (numbers) => numbers && numbers[(Math.floor(y) % side) * side + (Math.floor(x) % side)];
    const found = Object.create(null);
    for (const layer of covermap.ofKind("classes", "change", "number")) {
      const number = at(await covermap.numbers(layer, frame.native, Math.floor(x / side), Math.floor(y / side)));
      const none = number === null || number === (covermap.isWide(layer) ? 65535 : 255);
      found[layer.id] = none ? null : layer.kind === "number" ? { value: scaled(layer, number), side: sideOf(layer, number) } : layer.classes[number] || null;
    }
    const [east, north] = covermap.toCrs(frame, x, y);
    const [lon, lat] = covermap.toLonLat(frame, x, y) || [null, null];
    return { x: east, y: north, lon, lat, layers: found };
  }

  const fromServer = async (x, y) => (await covermap.ask(`point?x=${x}&y=${y}`)).json();

  function nearestSample(x, y) {
    if (!covermap.state.points && !covermap.state.labelling) return null;
    const most = NEAR_PX * Math.pow(2, covermap.view.frame.native - map.getZoom());
    let best = null;
    for (const layer of covermap.ofKind("points")) {
      for (const point of layer.points) {
        const far = Math.hypot(point.x - x, point.y - y);
        if (far <= most && (!best || far < best.far)) best = { layer, point, far };
      }
    }
    return best;
  }

  const rounded = (value) => (Number.isInteger(value) ? String(value) : String(+value.toPrecision(5)));

  /** Words of one layer's value: [swatch or null, text]. */
  function words(layer, value) {
    if (!value) return [null, "no data"];
    if (layer.kind === "number") return [null, value.value === null ? "no data" : [`${value.side || ""}${rounded(value.value)}`, layer.unit, layer.says].filter(Boolean).join(" ")];
    if (layer.kind === "probabilities") return [null, value.top.map((t) => `${t.name} ${rounded(t.percent)} %`).join(", ")];
    if (layer.kind === "image") {
      return [null, Object.entries(value).map(([band, v]) => `${band} ${v === null ? "–" : rounded(v)}`).join(", ")];
    }
    const entry = layer.classes.find((one) => one.code === value.code) || layer.classes.find((one) => one.name === value.name);
    return [entry ? entry.colour : null, value.name];
  }

  function sampleRows(near) {
    if (!near) return [];
    const { layer, point } = near;
    const name = (code) => (layer.legend.find((entry) => entry.code === code) || { name: String(code) }).name;
    const reference = point.reference === null || point.reference === undefined ? "not labelled" : name(point.reference);
    const mapped = covermap.isBlind() || point.mapped === undefined || point.mapped === null ? "" : `, mapped ${name(point.mapped)}`;
    return [[`${layer.name} ${point.id}`, null, reference + mapped]];
  }

  function show(answer, x, y) {
    const allowed = covermap.isBlind() ? ["image"] : ["classes", "change", "number", "probabilities", "image"];
    const rows = covermap.ofKind(...allowed).filter((layer) => Object.hasOwn(answer.layers, layer.id))
      .map((layer) => [layer.name, ...words(layer, answer.layers[layer.id]), layer.id]);
    const places = [[covermap.view.frame.crs || "place", null, covermap.crsWords(covermap.view.frame, x, y)]];
    if (answer.lat !== null && answer.lat !== undefined) places.push(["lat, lon", null, covermap.lonLatWords([answer.lon, answer.lat])]);
    const line = ([name, colour, text, id]) =>
      el("div", { className: "row", "data-layer": id },
        el("dt", {}, name), el("dd", {}, colour ? covermap.swatch(colour) : null, text));
    covermap.render(
      $("inspect"),
      el("div", { className: "head" }, el("h2", {}, "Pixel"),
        button("inspect-close", "×", covermap.closeInspect, { className: "icon", "aria-label": "Close the values" })),
      el("dl", {}, [...sampleRows(nearestSample(x, y)), ...rows, ...places].map(line)),
    );
    $("inspect").hidden = false;
  }

  covermap.closeInspect = function () {
    turn += 1;
    if ($("inspect").contains(document.activeElement)) map.getContainer().focus();
    $("inspect").hidden = true;
    if (outline) outline.remove();
    outline = null;
  };

  /** Ask for the values at a place, in frame pixels. */
  covermap.inspect = async function (x, y) {
    const mine = ++turn;
    const top = covermap.shown().left.top;
    if (outline) outline.remove();
    const drawn = { className: "outline", fill: false, interactive: false, pane: "marks" };
    outline = L.rectangle(covermap.pixelBounds(top, x, y), drawn).addTo(map);
    try {
      const answer = await (covermap.view.static ? fromTiles(x, y) : fromServer(x, y));
      if (mine !== turn) return;
      if (await covermap.compareVersions(answer.versions)) await covermap.inspect(x, y);
      else if (mine === turn) show(answer, x, y);
    } catch (error) {
      covermap.say(`The values were not read: ${error.message}`, true);
    }
  };

  covermap.startInspect = function (theMap) {
    map = theMap;
    map.on("click", ({ latlng }) => covermap.inspect(latlng.lng, latlng.lat));
    covermap.on("state", ({ changes }) => "labelling" in changes && covermap.closeInspect());
  };
})(window.covermap);
