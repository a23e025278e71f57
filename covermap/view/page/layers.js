// The panel's first section: which layer, or which two and the swipe, over which image, how opaque.
(function (covermap) {
  "use strict";

  const { $, el, button, choose } = covermap;
  const KINDS = { classes: "Maps", change: "Change", number: "Numbers", probabilities: "Probabilities", image: "Imagery" };

  const LISTED = 9; // more layers are chosen from a closed list, so that the legend stays in sight

  covermap.layerName = (layer) => (layer.date ? `${layer.name} (${layer.date})` : layer.name);

  function grouped(layers) {
    const kinds = [...new Set(layers.map((layer) => layer.kind))];
    const of = (kind) => layers.filter((layer) => layer.kind === kind);
    return kinds.map((kind) => ({ group: KINDS[kind], options: of(kind).map((l) => [l.id, covermap.layerName(l)]) }));
  }

  function oneLayer(layers) {
    const shown = covermap.shown().left.top;
    const pick = (id) => covermap.set({ main: id });
    if (layers.length > LISTED) return choose("main", "Layer", grouped(layers), shown ? shown.id : "", pick);
    let number = 0;
    const line = (layer) => {
      number += 1;
      const id = `layer-${layer.id}`;
      const box = el("input", {
        type: "radio", name: "layer", id, checked: layer === shown, onchange: () => pick(layer.id),
      });
      const key = number <= 9 && !covermap.state.labelling ? el("kbd", { "aria-hidden": "true" }, String(number)) : null;
      return el("label", { className: "line", for: id }, box, el("span", { className: "grow" }, covermap.layerName(layer)), key);
    };
    const groups = grouped(layers).map(({ group, options }) =>
      el("div", { className: "group", role: "radiogroup", "aria-label": group },
        el("span", { className: "kind", "aria-hidden": "true" }, group),
        options.map(([id]) => line(covermap.layer(id)))));
    return el("div", { className: "choices" }, groups);
  }

  function twoLayers(layers) {
    const { left, right } = covermap.shown();
    const pick = (side, label, now) =>
      choose(`side-${side}`, label, grouped(layers), now.top ? now.top.id : "", (id) => covermap.set({ [side]: id }));
    const swap = () => covermap.set({ left: right.top.id, right: left.top.id });
    const pairs = covermap.pairs().filter((pair) => [pair.left, pair.right].every((id) => layers.some((l) => l.id === id)));
    return [
      pick("left", "Left", left),
      pick("right", "Right", right),
      el("div", { className: "chips", role: "group", "aria-label": "Pairs" },
        pairs.map((pair, i) => {
          const now = left.top && right.top && left.top.id === pair.left && right.top.id === pair.right;
          return button(`pair-${i}`, pair.name, () => covermap.set({ left: pair.left, right: pair.right }), {
            className: "chip", "aria-pressed": String(Boolean(now)),
          });
        }),
        button("pair-swap", "⇄ Swap", swap, { className: "chip" })),
    ];
  }

  function opacity() {
    const out = el("output", { id: "opacity-words", for: "opacity" }, `${covermap.state.opacity} %`);
    const slider = el("input", {
      type: "range", id: "opacity", min: 0, max: 100, step: 5, value: covermap.state.opacity,
      oninput: () => covermap.set({ opacity: +slider.value }, "view"),
    });
    return el("label", { className: "field", for: "opacity" }, el("span", {}, "Opacity"), slider, out);
  }

  function base() {
    const images = covermap.ofKind("image").map((layer) => [layer.id, covermap.layerName(layer)]);
    if (!images.length) return null;
    return choose("base", "Backdrop", [...images, ["", "nothing"]], covermap.state.base, (id) => covermap.set({ base: id }));
  }

  function draw() {
    const { swipe, points } = covermap.state;
    const layers = covermap.choices();
    const [samples] = covermap.ofKind("points");
    const overImage = covermap.onMap().some(covermap.isData);
    const toggle = button("swipe-toggle", "Swipe", () => covermap.set({ swipe: !swipe }), {
      "aria-pressed": String(swipe), title: "Two layers side by side (S)",
    });
    covermap.render(
      $("layers"),
      el("div", { className: "head" }, el("h2", {}, "Layers"), layers.length > 1 ? toggle : null),
      swipe ? twoLayers(layers) : oneLayer(layers),
      overImage ? base() : null,
      overImage ? opacity() : null,
      samples ? covermap.tick("points", "Sample points", points, (on) => covermap.set({ points: on })) : null,
      covermap.bandsEditor(),
    );
  }

  /** The layer `step` after the one that is shown. */
  covermap.stepLayer = function (step) {
    const layers = covermap.choices();
    const now = layers.indexOf(covermap.shown().left.top);
    const next = layers[(now + step + layers.length) % layers.length];
    if (next) covermap.set(covermap.state.swipe ? { left: next.id } : { main: next.id });
  };

  covermap.startLayers = function () {
    const own = ["main", "swipe", "left", "right", "base", "points", "looks", "labelling", "blind"];
    covermap.on("state", ({ changes }) => {
      if (own.some((name) => name in changes)) draw();
      if (!("opacity" in changes) || !$("opacity")) return;
      $("opacity").value = covermap.state.opacity;
      $("opacity-words").textContent = `${covermap.state.opacity} %`;
    });
    draw();
  };
})(window.covermap);
