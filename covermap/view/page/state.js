// What is shown: one plain object, changed by `covermap.set` alone, which tells everyone.
(function (covermap) {
  "use strict";

  covermap.state = {
    main: "", // id of the layer shown without swipe
    swipe: false,
    left: "", // ids with swipe
    right: "",
    split: 0.5, // share of the map's width that is left of the handle
    base: "", // id of the image under maps; "" for none
    opacity: 80, // percent, of everything but images
    points: true,
    looks: {}, // by the names of an image's bands: {bands: [3 names], stretch, preset}
    hidden: {}, // by layer id: list of indices of classes that are not drawn
    part: {}, // by layer id: index of the class whose probability is drawn
    changedOnly: false,
    from: "", // names of classes of the change filter; "" for all
    to: "",
    labelling: "", // id of the points that are being labelled
    blind: true, // imagery alone while labelling
  };

  /** Change some of the state; `why` is "view" for what the browser's history should not keep as a step. */
  covermap.set = function (changes, why) {
    Object.assign(covermap.state, changes);
    covermap.tell("state", { changes, why });
  };

  const isData = (layer) => layer.kind !== "image" && layer.kind !== "points";

  covermap.layer = (id) => covermap.view.layers.find((layer) => layer.id === id);
  covermap.ofKind = (...kinds) => covermap.view.layers.filter((layer) => kinds.includes(layer.kind));
  covermap.isData = isData;

  /** May be shown: all but points; while labelling blind, images alone. */
  covermap.choices = function () {
    return covermap.ofKind(...(covermap.isBlind() ? ["image"] : ["classes", "change", "number", "probabilities", "image"]));
  };

  covermap.isBlind = () => Boolean(covermap.state.labelling) && covermap.state.blind;

  /** Which layers stand where: {left: {top, base}, right or null}; while labelling blind no map is among them. */
  covermap.shown = function () {
    const state = covermap.state;
    const allowed = covermap.choices();
    const images = covermap.ofKind("image");
    const pick = (id, otherwise) => allowed.find((layer) => layer.id === id) || otherwise || null;
    const base = covermap.layer(state.base) || null;
    const side = (top) => ({ top, base: top && isData(top) ? base : null });
    if (!state.swipe) return { left: side(pick(state.main, base || images[0])), right: null };
    const [latest, earliest] = [images[0], images[images.length - 1]];
    const sides = [pick(state.left, earliest), pick(state.right, latest)];
    if (covermap.isBlind() && sides[0] === sides[1]) sides.splice(0, 2, earliest, latest); // what stood there is hidden
    return { left: side(sides[0]), right: side(sides[1]) };
  };

  /** The different layers that are on the map, tops before bases. */
  covermap.onMap = function () {
    const { left, right } = covermap.shown();
    const all = [left.top, right && right.top, left.base, right && right.base];
    return [...new Set(all.filter(Boolean))];
  };

  /** The change layer that filters: one that is shown, else the first. */
  covermap.changeLayer = function () {
    return covermap.onMap().find((layer) => layer.kind === "change") || covermap.ofKind("change")[0] || null;
  };

  /** A first state that shows what there is: the first map over the image that it was made of. */
  covermap.startState = function () {
    const image = covermap.ofKind("image")[0];
    const first = covermap.ofKind("classes")[0] || covermap.ofKind("change", "number", "probabilities")[0] || image;
    const pair = covermap.pairs()[0];
    Object.assign(covermap.state, {
      main: first ? first.id : "",
      base: image ? (covermap.imageOf(first) || image).id : "",
      points: covermap.ofKind("points").some((layer) => layer.num_labelled < layer.points.length), // what is left to do
      left: pair ? pair.left : first ? first.id : "",
      right: pair ? pair.right : first ? first.id : "",
    });
  };

  /** Pairs worth swiping, as {name, left, right}: earlier on the left, the plain thing left of what is made of it. */
  covermap.pairs = function () {
    const [map, mapBefore] = covermap.ofKind("classes");
    const [image, ...otherImages] = covermap.ofKind("image");
    const imageBefore = otherImages[otherImages.length - 1];
    const [change] = covermap.ofKind("change");
    const [number] = covermap.ofKind("number");
    const before = (change && change.of && covermap.layer(change.of[0])) || mapBefore;
    const after = (change && change.of && covermap.layer(change.of[1])) || map;
    const pairs = [
      ["Image | map", covermap.imageOf(map) || image, map],
      ["Map | map", before, after],
      ["Date | date", imageBefore, image],
      ["Map | change", after, change],
      ["Map | " + (number ? number.of ? "confidence" : number.name : ""), map, number],
    ];
    return pairs.filter(([, a, b]) => a && b && a !== b).map(([name, a, b]) => ({ name, left: a.id, right: b.id }));
  };
})(window.covermap);
