// Points of samples on the map, coloured by their reference; and the door to labelling.
(function (covermap) {
  "use strict";

  const { $, el, button } = covermap;
  let map;
  let group = null;
  let renderer;

  covermap.isLabelled = (point) => point.reference !== null && point.reference !== undefined;

  const isClose = () => map.getZoom() > covermap.view.frame.native;

  function mark(layer, point) {
    const entry = layer.legend.find((one) => one.code === point.reference);
    return L.circleMarker([point.y, point.x], {
      renderer, interactive: false, radius: isClose() ? 6 : 3, weight: isClose() ? 2 : 1, color: "#ffffff", fillOpacity: 1,
      fillColor: entry ? entry.colour || "#888888" : "#202020",
    });
  }

  function drawPoints() {
    if (group) group.remove();
    group = null;
    if (!covermap.state.points || covermap.state.labelling) return;
    const marks = covermap.ofKind("points").flatMap((layer) => layer.points.map((point) => mark(layer, point)));
    group = L.layerGroup(marks).addTo(map);
  }

  /** Why a sample cannot be labelled here; "" where it can. */
  covermap.whyNotLabelled = function (layer) {
    if (covermap.view.static) return "Labels are saved by `covermap view`; this folder has no server, so it cannot label.";
    return layer.editable ? "" : layer.problem || "This file cannot be written, so it cannot be labelled.";
  };

  function drawPanel() {
    const layers = covermap.ofKind("points");
    $("samples").hidden = !layers.length;
    covermap.render($("samples"), el("h2", {}, "Sample points"), layers.map((layer) => {
      const why = covermap.whyNotLabelled(layer);
      const labelled = layer.points.filter(covermap.isLabelled).length;
      const act = () => covermap.startLabellingOf(layer);
      const start = button(`label-${layer.id}`, "Label points", act, { title: "Label points (L)" });
      return el("div", { className: "layer" }, el("h3", {}, layer.name),
        el("p", { className: "hint" }, `${labelled} of ${layer.points.length} points have a reference class.`),
        why ? el("p", { className: "hint" }, why) : start);
    }));
  }

  covermap.startSamples = function (theMap) {
    map = theMap;
    map.createPane("points").style.zIndex = 420;
    map.getPane("points").classList.add("through");
    renderer = L.canvas({ pane: "points" });
    covermap.on("state", ({ changes }) => {
      if ("points" in changes || "labelling" in changes) drawPoints();
      if ("labelling" in changes) drawPanel();
    });
    for (const change of ["label-saved", "label-point", "label-taken"]) covermap.on(change, drawPanel); // how many are labelled
    let wasClose = isClose();
    map.on("zoomend", () => {
      if (wasClose !== isClose()) drawPoints();
      wasClose = isClose();
    });
    drawPoints();
    drawPanel();
  };
})(window.covermap);
