// Legends of what is on the map: classes to hide or show alone, hectares of the whole layer, ramps, the change filter.
(function (covermap) {
  "use strict";

  const { $, el, button, choose } = covermap;

  /** Classes are hidden in all layers of a group: those on the map that have the same ones. */
  function hide(layers, indices) {
    const hidden = Object.fromEntries(layers.map((layer) => [layer.id, indices]));
    covermap.set({ hidden: { ...covermap.state.hidden, ...hidden } });
  }

  const all = (layer) => layer.classes.map((_, i) => i);

  function toggle(layers, index) {
    const hidden = covermap.own(covermap.state.hidden, layers[0].id) || [];
    hide(layers, hidden.includes(index) ? hidden.filter((i) => i !== index) : [...hidden, index]);
  }

  function solo(layers, index) {
    const [layer] = layers;
    const others = all(layer).filter((i) => i !== index);
    const isAlone = others.every((i) => covermap.isHidden(layer, i)) && !covermap.isHidden(layer, index);
    hide(layers, isAlone ? [] : others);
  }

  /** "12.3 ha", or pixels where a pixel has no one area. */
  covermap.areaWords = function (entry) {
    if (typeof entry.hectares === "number") return `${covermap.hectares(entry.hectares)} ha`;
    return typeof entry.pixels === "number" ? `${covermap.number(entry.pixels)} px` : "";
  };

  const withoutUnit = (entry) => covermap.areaWords(entry).replace(/ \w+$/, "");

  function row(layers, index) {
    const [layer] = layers;
    const entry = layer.classes[index];
    const area = layers.length > 1 ? withoutUnit : covermap.areaWords;
    const id = `class-${layer.id}-${index}`;
    const box = el("input", {
      type: "checkbox", id, checked: !covermap.isHidden(layer, index), onchange: () => toggle(layers, index),
    });
    return el("li", {},
      el("label", { className: "line", for: id }, box, covermap.swatch(entry.colour),
        el("span", { className: "grow" }, entry.name),
        layers.map((one) => el("span", { className: "amount" }, area(one.classes[index])))),
      button(`solo-${layer.id}-${index}`, "only", () => solo(layers, index), {
        className: "quiet", "aria-label": `only ${entry.name}`, title: `Only ${entry.name}; again: all`,
      }));
  }

  /** Classes to list: all of a map; of a change layer those that occur and pass the filter, the largest first. */
  function listed(layer) {
    const indices = all(layer);
    if (layer.kind !== "change") return indices;
    const size = (i) => layer.classes[i].pixels ?? layer.classes[i].hectares ?? 1;
    return indices.filter((i) => size(i) > 0 && covermap.passes(layer.classes[i])).sort((a, b) => size(b) - size(a));
  }

  function classes(layers) {
    const [layer] = layers;
    const indices = listed(layer);
    const area = layers.length > 1 ? withoutUnit : covermap.areaWords;
    const summed = layer.kind === "classes" ? layers : [];
    const totals = summed.map((one) => el("span", { className: "amount" }, area(one)));
    const unit = typeof layer.hectares === "number" ? "ha" : "px";
    const heads = layers.map((one, i) => el("span", { className: "amount" }, `${i ? "right" : "left"}, ${unit}`));
    return [
      layers.length > 1 ? el("div", { className: "line columns" }, el("span", { className: "grow" }), heads) : null,
      el("ul", { className: "classes", id: `classes-${layer.id}` }, indices.map((i) => row(layers, i))),
      indices.length ? null : el("p", { className: "hint" }, "No change passes this filter."),
      layers.filter((one) => one.unknown_pixels).map((one) => el("p", { className: "hint bad" },
        `${covermap.number(one.unknown_pixels)} px of ${one.name} have codes that are in no legend: they are not drawn and in no area.`)),
      el("div", { className: "line columns" },
        button(`show-${layer.id}`, "Show all", () => hide(layers, []), { className: "quiet" }),
        button(`hide-${layer.id}`, "Hide all", () => hide(layers, all(layer)), { className: "quiet" }),
        el("span", { className: "grow total" }, totals.length === 1 ? "all" : ""), totals),
    ];
  }

  /** Layers of classes that are the same, as they are in maps of two dates, share a legend. */
  function grouped(layers) {
    const groups = new Map();
    for (const layer of layers) {
      const same = layer.kind === "classes" ? JSON.stringify(layer.classes.map((c) => [c.code, c.name, c.colour])) : layer.id;
      groups.set(same, [...(groups.get(same) || []), layer]);
    }
    return [...groups.values()];
  }

  function gradient([layer]) {
    const bar = el("div", { className: "ramp", role: "img", "aria-label": `Colours from ${layer.low} to ${layer.high} ${layer.unit}` });
    bar.style.background = `linear-gradient(to right, ${layer.colours.join(", ")})`;
    return [
      bar,
      el("div", { className: "line amount" }, `${layer.low} ${layer.unit}`, el("span", { className: "grow" }), `${layer.high} ${layer.unit}`),
      layer.words ? el("p", { className: "hint" }, layer.words) : null,
    ];
  }

  function probabilities([layer]) {
    const names = layer.classes.map((entry, i) => [String(i), entry.name]);
    const now = String(covermap.own(covermap.state.part, layer.id) || 0);
    const pick = (i) => covermap.set({ part: { ...covermap.state.part, [layer.id]: +i } });
    return [choose(`part-${layer.id}`, "Class", names, now, pick), gradient([layer])];
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
      grouped(layers).map((group) => el("div", { className: "layer", "data-layer": group[0].id },
        el("h3", {}, group.map(covermap.layerName).join(" and ")), OF_KIND[group[0].kind](group))),
      change && layers.length && !layers.includes(change) ? filter(change) : null,
    );
  }

  covermap.startLegend = function () {
    covermap.on("state", ({ why }) => why !== "view" && draw());
    draw();
  };
})(window.covermap);
