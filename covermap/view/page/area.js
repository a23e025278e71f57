// Hectares of each class in what is on the screen, counted from the tiles that are drawn.
(function (covermap) {
  "use strict";

  const { $, el } = covermap;
  let map;
  let turn = 0;

  /** The view in whole pixels of zoom z, clipped to the layer: {z, left, top, right, bottom}. */
  function viewIn(layer) {
    const { frame } = covermap.view;
    const z = Math.max(0, Math.min(Math.round(map.getZoom()), frame.native));
    const scale = Math.pow(2, frame.native - z); // frame pixels along one that is counted
    const view = map.getBounds();
    const [left, top, right, bottom] = layer.bounds.map((edge) => Math.round(edge / scale));
    const within = (value, low, high) => Math.min(high, Math.max(low, Math.round(value / scale)));
    return {
      z, scale,
      left: within(view.getWest(), left, right), right: within(view.getEast(), left, right),
      top: within(view.getSouth(), top, bottom), bottom: within(view.getNorth(), top, bottom),
    };
  }

  function addTile(found, numbers, passes, side, x0, y0, part) {
    for (let y = Math.max(part.top - y0, 0); y < Math.min(part.bottom - y0, side); y++) {
      const each = covermap.pixelHectares(covermap.view.frame, (y0 + y + 0.5) * part.scale) * part.scale * part.scale;
      for (let x = Math.max(part.left - x0, 0); x < Math.min(part.right - x0, side); x++) {
        const i = y * side + x;
        if (!passes(i)) continue;
        found.counts[numbers[i]] += 1;
        found.areas[numbers[i]] += each;
      }
    }
  }

  /** The change layer whose filter cuts what is drawn of this one, or null. */
  const filterOf = (layer) => (layer.kind === "classes" && covermap.filters() ? covermap.changeLayer() : null);

  /** Promise of {counts and areas (ha) by number, z, scale, filter} of a layer of classes: of the pixels in the view that the filter leaves. */
  covermap.countView = async function (layer) {
    const side = covermap.view.frame.tile_px;
    const part = viewIn(layer);
    const size = covermap.isWide(layer) ? 65536 : 256;
    const found = { counts: new Float64Array(size), areas: new Float64Array(size) };
    const filter = filterOf(layer);
    const passing = filter && covermap.maskTable(filter);
    const waiting = [];
    for (let y = Math.floor(part.top / side); y * side < part.bottom; y++) {
      for (let x = Math.floor(part.left / side); x * side < part.right; x++) {
        const both = [covermap.numbers(layer, part.z, x, y), filter && covermap.numbers(filter, part.z, x, y)];
        const add = ([numbers, mask]) => {
          const passes = filter ? (i) => mask && passing[mask[i]] : () => true;
          if (numbers) addTile(found, numbers, passes, side, x * side, y * side, part);
        };
        waiting.push(Promise.all(both).then(add));
      }
    }
    await Promise.all(waiting);
    return { ...found, filter, ...part };
  };

  /** How far the counts can be trusted, in words. */
  function exactness(layer, filter, z) {
    const { frame } = covermap.view;
    if ([layer, filter].some((one) => one && one.exact === false)) {
      return `an estimate, for ${layer.exact === false ? "the layer" : "the filter"} lies on another grid than the screen; the legend has the counted areas`;
    }
    return z >= frame.native ? "exact" : `zoom in to ${covermap.length(covermap.pixelSize(frame), frame.unit)} for exact areas`;
  }

  function chart(layer, { counts, areas, scale, z, filter, ...edges }) {
    const part = [edges.left, edges.top, edges.right, edges.bottom];
    const { frame } = covermap.view;
    const inPx = covermap.pixelHectares(frame, 0) === null;
    const amounts = inPx ? counts : areas;
    const rows = layer.classes.map((entry, i) => ({ entry, i, count: counts[i], amount: amounts[i] })).filter((row) => row.count);
    if (layer.kind === "change") rows.sort((a, b) => b.amount - a.amount);
    const sum = rows.reduce((total, row) => total + row.amount, 0);
    const most = rows.reduce((large, row) => Math.max(large, row.entry.changed === false ? 0 : row.amount), 0);
    const words = inPx ? covermap.number : covermap.hectares;
    const line = ({ entry, i, count, amount }) => {
      const bar = el("span", { className: "bar" });
      bar.style.width = `${Math.min(100, (100 * amount) / most)}%`;
      bar.style.backgroundColor = entry.colour;
      const dim = covermap.isHidden(layer, i) || (layer.kind === "change" && !covermap.passes(entry));
      return el("tr", { className: dim ? "dim" : "", "data-code": entry.code, "data-count": count, "data-amount": amount },
        el("th", { scope: "row" }, entry.name), el("td", { className: "bars" }, bar),
        el("td", { className: "amount" }, words(amount)),
        el("td", { className: "amount" }, `${((100 * amount) / sum).toFixed(1)} %`));
    };
    const size = covermap.length(covermap.pixelLength(frame, map.getCenter().lat) * scale, frame.unit);
    return el("table", { className: "areas", "data-layer": layer.id, "data-scale": scale, "data-window": part.join() },
      el("caption", {}, el("strong", {}, covermap.layerName(layer)), ` ${filter ? "what the filter leaves, " : ""}counted at pixels of ${size}: ${exactness(layer, filter, z)}`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class"), el("td", {}),
        el("th", { scope: "col", className: "amount" }, inPx ? "px" : "ha"),
        el("th", { scope: "col", className: "amount" }, "share"))),
      el("tbody", {}, rows.map(line)),
      el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "total"), el("td", {}),
        el("td", { className: "amount" }, words(sum)), el("td", {}))));
  }

  async function draw() {
    const mine = ++turn;
    const layers = covermap.onMap().filter((layer) => layer.kind === "classes" || layer.kind === "change");
    $("area").hidden = !layers.length || Boolean(covermap.state.labelling);
    if ($("area").hidden) return;
    let counted;
    try {
      counted = await Promise.all(layers.map(covermap.countView));
    } catch (error) {
      counted = null;
      if (mine === turn) covermap.render($("area"), el("h2", {}, "Area in view"), el("p", {}, `Not counted: ${error.message}`));
    }
    if (mine !== turn || !counted) return; // the view has moved on
    covermap.render($("area"), el("h2", {}, "Area in view"), layers.map((layer, i) => chart(layer, counted[i])));
  }

  covermap.startArea = function (theMap) {
    map = theMap;
    const soon = covermap.later(draw, 120);
    map.on("moveend zoomend resize", soon);
    covermap.on("state", ({ changes }) => {
      if (covermap.isBlind()) $("area").hidden = true; // at once: it tells what the map says
      if (!("split" in changes) && !("opacity" in changes)) soon();
    });
    soon();
  };
})(window.covermap);
