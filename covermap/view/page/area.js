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

  function addTile(counts, numbers, passes, side, x0, y0, part) {
    for (let y = Math.max(part.top - y0, 0); y < Math.min(part.bottom - y0, side); y++) {
      for (let x = Math.max(part.left - x0, 0); x < Math.min(part.right - x0, side); x++) {
        const i = y * side + x;
        if (passes(i)) counts[numbers[i]] += 1;
      }
    }
  }

  /** The change layer whose filter cuts what is drawn of this one, or null. */
  const filterOf = (layer) => (layer.kind === "classes" && covermap.filters() ? covermap.changeLayer() : null);

  /** Promise of {counts by number, z, scale, filter} of a layer of classes: of the pixels in the view that the filter leaves. */
  covermap.countView = async function (layer) {
    const side = covermap.view.frame.tile_px;
    const part = viewIn(layer);
    const counts = new Float64Array(covermap.isWide(layer) ? 65536 : 256);
    const filter = filterOf(layer);
    const passing = filter && covermap.maskTable(filter);
    const waiting = [];
    for (let y = Math.floor(part.top / side); y * side < part.bottom; y++) {
      for (let x = Math.floor(part.left / side); x * side < part.right; x++) {
        const both = [covermap.numbers(layer, part.z, x, y), filter && covermap.numbers(filter, part.z, x, y)];
        const add = ([numbers, mask]) => {
          const passes = filter ? (i) => mask && passing[mask[i]] : () => true;
          if (numbers) addTile(counts, numbers, passes, side, x * side, y * side, part);
        };
        waiting.push(Promise.all(both).then(add));
      }
    }
    await Promise.all(waiting);
    return { counts, filter, ...part };
  };

  function chart(layer, { counts, scale, z, filter, ...edges }) {
    const part = [edges.left, edges.top, edges.right, edges.bottom];
    const { frame } = covermap.view;
    const each = frame.hectares_per_px === null ? null : frame.hectares_per_px * scale * scale;
    const rows = layer.classes.map((entry, i) => ({ entry, i, count: counts[i] })).filter((row) => row.count);
    if (layer.kind === "change") rows.sort((a, b) => b.count - a.count);
    const sum = rows.reduce((total, row) => total + row.count, 0);
    const most = rows.reduce((large, row) => Math.max(large, row.entry.changed === false ? 0 : row.count), 1);
    const words = (count) => (each === null ? covermap.number(count) : covermap.hectares(count * each));
    const line = ({ entry, i, count }) => {
      const bar = el("span", { className: "bar" });
      bar.style.width = `${Math.min(100, (100 * count) / most)}%`;
      bar.style.backgroundColor = entry.colour;
      const dim = covermap.isHidden(layer, i) || (layer.kind === "change" && !covermap.passes(entry));
      return el("tr", { className: dim ? "dim" : "", "data-code": entry.code, "data-count": count },
        el("th", { scope: "row" }, entry.name), el("td", { className: "bars" }, bar),
        el("td", { className: "amount" }, words(count)),
        el("td", { className: "amount" }, `${((100 * count) / sum).toFixed(1)} %`));
    };
    const native = covermap.pixelSize(frame);
    const size = covermap.length(native * scale, frame.unit);
    const exact = z >= frame.native ? "exact" : `zoom in to ${covermap.length(native, frame.unit)} for exact areas`;
    return el("table", { className: "areas", "data-layer": layer.id, "data-scale": scale, "data-window": part.join() },
      el("caption", {}, el("strong", {}, covermap.layerName(layer)), ` ${filter ? "what the filter leaves, " : ""}counted at pixels of ${size}: ${exact}`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class"), el("td", {}),
        el("th", { scope: "col", className: "amount" }, each === null ? "px" : "ha"),
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
