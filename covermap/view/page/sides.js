// The map's two sides: each a pane with an image below and a layer on top; without swipe the left one fills the map.
(function (covermap) {
  "use strict";

  const sides = { left: {}, right: {} };
  let map;

  /** Set one place of a side to a layer (or null), without touching what is there already. */
  function put(side, place, layer, look) {
    const there = sides[side][place];
    const name = layer ? `${layer.id} ${layer.version} ${look}` : "";
    if (there && there.name === name) return there.drawn;
    if (there) there.drawn.remove();
    sides[side][place] = null;
    if (!layer) return null;
    const drawn = covermap.leafletLayer(layer, `${side}-${place}`).addTo(map);
    sides[side][place] = { name, drawn };
    return drawn;
  }

  /** Bands and stretch of an image are part of what is there: other ones are other tiles. */
  function lookName(layer) {
    return layer && layer.kind === "image" ? JSON.stringify(covermap.lookOf(layer)) : "";
  }

  const painted = ["hidden", "part", "changedOnly", "from", "to"];

  function draw(changes) {
    const shown = covermap.shown();
    const again = painted.some((name) => name in changes);
    for (const side of ["left", "right"]) {
      const { top, base } = shown[side] || { top: null, base: null };
      put(side, "base", base, lookName(base));
      const before = sides[side].top && sides[side].top.drawn;
      const drawn = put(side, "top", top, lookName(top));
      // Of the pane, not by Leaflet's setOpacity, which fades each tile in anew.
      map.getPane(`${side}-top`).style.opacity = top && covermap.isData(top) ? covermap.state.opacity / 100 : 1;
      if (drawn && drawn === before && again && covermap.isData(top)) drawn.repaint();
    }
  }

  covermap.startSides = function (theMap) {
    map = theMap;
    for (const side of ["left", "right"]) {
      const pane = map.createPane(side);
      pane.style.zIndex = side === "left" ? 210 : 211;
      map.createPane(`${side}-base`, pane).style.zIndex = 1;
      map.createPane(`${side}-top`, pane).style.zIndex = 2;
    }
    covermap.on("state", ({ changes }) => draw(changes));
    draw({});
  };
})(window.covermap);
