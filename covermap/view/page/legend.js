// Legends of what is on the map: classes to hide or show alone, hectares of the whole layer, ramps, the change filter.
(function (covermap) {
  "use strict";

  const { $, el, button, choose } = covermap;

  function hide(layer, indices) {
    covermap.set({ hidden: { ...covermap.state.hidden, [layer.id]: indices } });
  }

  const all = (layer) => layer.classes.map((_, i) => i);

  function toggle(layer, index) {
    const hidden = covermap.state.hidden[layer.id] || [];
    hide(layer, hidden.includes(index) ? hidden.filter((i) => i !== index) : [...hidden, index]);
  }

  function solo(layer, index) {
    const others = all(layer).filter((i) => i !== index);
    const isAlone = others.every((i) => covermap.isHidden(layer, i)) && !covermap.isHidden(layer, index);
    hide(layer, isAlone ? [] : others);
  }

  /** "12.3 ha", or pixels where a pixel has no one area. */
  covermap.areaWords = function (entry) {
    if (typeof entry.hectares === "number") return `${covermap.hectares(entry.hectares)} ha`;
    return typeof entry.pixels === "number" ? `${covermap.number(entry.pixels)} px` : "";
  };

  function row(layer, index) {
    const entry = layer.classes[index];
    const id = `class-${layer.id}-${index}`;
    const box = el("input", {
      type: "checkbox", id, checked: !covermap.isHidden(layer, index), onchange: () => toggle(layer, index),
    });
    return el("li", {},
      el("label", { className: "line", for: id }, box, covermap.swatch(entry.colour),
        el("span", { className: "grow" }, entry.name), el("span", { className: "amount" }, covermap.areaWords(entry))),
      button(`solo-${layer.id}-${index}`, "only", () => solo(layer, index), {
        className: "quiet", "aria-label": `Only ${entry.name}`, title: `Only ${entry.name}; again: all`,
      }));
  }

  /** Classes to list: all of a map; of a change layer those that occur and pass the filter, the largest first. */
  function listed(layer) {
    const indices = all(layer);
    if (layer.kind !== "change") return indices;
    const size = (i) => layer.classes[i].pixels ?? layer.classes[i].hectares ?? 1;
    return indices.filter((i) => size(i) > 0 && covermap.passes(layer.classes[i])).sort((a, b) => size(b) - size(a));
  }

  function classes(layer) {
    const indices = listed(layer);
    const total = layer.kind === "classes" ? covermap.areaWords(layer) : "";
    return [
      el("ul", { className: "classes" }, indices.map((i) => row(layer, i))),
      indices.length ? null : el("p", { className: "hint" }, "No change passes this filter."),
      el("div", { className: "line" },
        button(`show-${layer.id}`, "Show all", () => hide(layer, []), { className: "quiet" }),
        button(`hide-${layer.id}`, "Hide all", () => hide(layer, all(layer)), { className: "quiet" }),
        el("span", { className: "grow" }), total ? el("span", { className: "amount" }, total) : null),
    ];
  }

  function gradient(layer) {
    const bar = el("div", { className: "ramp", role: "img", "aria-label": `Colours from ${layer.low} to ${layer.high} ${layer.unit}` });
    bar.style.background = `linear-gradient(to right, ${layer.colours.join(", ")})`;
    return [
      bar,
      el("div", { className: "line amount" }, `${layer.low} ${layer.unit}`, el("span", { className: "grow" }), `${layer.high} ${layer.unit}`),
      layer.words ? el("p", { className: "hint" }, layer.words) : null,
    ];
  }

  function probabilities(layer) {
    const names = layer.classes.map((entry, i) => [String(i), entry.name]);
    const now = String(covermap.state.part[layer.id] || 0);
    const pick = (i) => covermap.set({ part: { ...covermap.state.part, [layer.id]: +i } });
    return [choose(`part-${layer.id}`, "Class", names, now, pick), gradient(layer)];
  }

  const OF_KIND = { classes, change: classes, number: gradient, probabilities };

  /** Names of the classes that changed pixels come from, or go to; none where the map only says "changed". */
  function ends(change, end) {
    const names = new Set(change.classes.filter((entry) => entry.changed).map((entry) => entry[end]));
    return [...names].filter(Boolean).sort().map((name) => [name, name]);
  }

  /** Changed pixels alone; from and to which class. It masks maps of classes and numbers too. */
  function filter(change) {
    const { changedOnly, from, to } = covermap.state;
    const [before, after] = ["from", "to"].map((end) => ends(change, end));
    const any = ["", "any class"];
    return el("div", { className: "filter", role: "group", "aria-label": `Filter by ${change.name}` },
      el("h3", {}, `Filter by ${change.name}`),
      covermap.tick("changed-only", "Changed pixels only", changedOnly, (on) => covermap.set({ changedOnly: on })),
      before.length ? choose("change-from", "From", [any, ...before], from, (name) => covermap.set({ from: name })) : null,
      after.length ? choose("change-to", "To", [any, ...after], to, (name) => covermap.set({ to: name })) : null);
  }

  function draw() {
    const layers = covermap.onMap().filter(covermap.isData);
    const change = covermap.changeLayer();
    $("legend").hidden = !layers.length;
    covermap.render(
      $("legend"),
      el("h2", {}, "Legend"),
      layers.includes(change) ? filter(change) : null,
      layers.map((layer) => el("div", { className: "layer", "data-layer": layer.id },
        el("h3", {}, covermap.layerName(layer)), OF_KIND[layer.kind](layer))),
      change && layers.length && !layers.includes(change) ? filter(change) : null,
    );
  }

  covermap.startLegend = function () {
    covermap.on("state", ({ why }) => why !== "view" && draw());
    draw();
  };
})(window.covermap);
