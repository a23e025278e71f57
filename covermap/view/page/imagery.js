// Which imagery a sample is labelled on: that of its map, or the one nearest to it in time; and what is said of it.
(function (covermap) {
  "use strict";

  const FAR_MS = 183 * 24 * 3600 * 1000; // half a year: another season, or another year

  /** The time of a date or the middle of an interval ("first/last"), NaN where there is none. */
  function timeOf(layer) {
    const ends = String((layer && layer.date) || "").split("/").map((end) => Date.parse(end.trim()));
    return ends.reduce((sum, end) => sum + end, 0) / ends.length;
  }

  const listed = (of) => (Array.isArray(of) ? of : of ? [of] : []);

  /** The maps that the classes of a sample are of: one, or before and after where it was drawn from a change. */
  function mapsOf(sample) {
    const source = sample.of && covermap.layer(sample.of);
    if (!source) return [];
    const ends = source.kind === "change" ? listed(source.of).map(covermap.layer).filter(Boolean) : [];
    return ends.length ? ends : [source];
  }

  /** The image that a map was made of, else the one nearest to its date; null where neither is known, or no map. */
  covermap.imageOf = function (map) {
    if (!map) return null;
    const images = covermap.ofKind("image");
    const own = images.filter((image) => listed(image.of).includes(map.id));
    const from = own.length ? own : images;
    const far = (image) => Math.abs(timeOf(image) - timeOf(map));
    const dated = from.filter((image) => Number.isFinite(far(image))).sort((a, b) => far(a) - far(b));
    return dated[0] || own[0] || null;
  };

  /** Label a sample, on the imagery of its map; of a change on that of both dates, side by side. */
  covermap.startLabellingOf = function (sample) {
    const found = mapsOf(sample).map(covermap.imageOf).filter(Boolean);
    const [first, last] = [found[0], found[found.length - 1]];
    const { main, swipe } = covermap.state;
    const isImage = main && covermap.layer(main) && covermap.layer(main).kind === "image";
    const shown = last ? { base: last.id, main: isImage ? last.id : main } : {};
    if (last && swipe) shown.right = last.id;
    if (first !== last) Object.assign(shown, { swipe: true, left: first.id, right: last.id });
    covermap.set({ ...shown, labelling: sample.id });
  };

  const dated = (layer) => `${layer.name} (${layer.date || "date unknown"})`;

  /** {words, isBad}: which imagery is shown, and how its date is to that of the map. */
  covermap.imageryWords = function (sample) {
    const images = covermap.onMap().filter((layer) => layer.kind === "image");
    const maps = mapsOf(sample);
    if (!images.length) {
      const advice = covermap.state.blind ? "the maps are hidden: " : "";
      return { words: `No imagery is shown; ${advice}${covermap.ofKind("image").length
        ? "choose an image under Layers." : "open an image too (covermap view MAP IMAGE SAMPLE), or show the maps."}`, isBad: true };
    }
    const ofMap = maps.map((map) => `${map.name} is ${map.date ? `of ${map.date}` : "of an unknown date"}`);
    const belongs = (image, map) => listed(image.of).includes(map.id) || Math.abs(timeOf(image) - timeOf(map)) <= FAR_MS;
    const lost = maps.filter((map) => !images.some((image) => belongs(image, map)));
    const unknown = lost.some((map) => !map.date) || images.every((image) => !image.date);
    const other = "It is of another time: what is seen on it is no reference for that map.";
    const doubt = lost.length ? ` ${unknown ? "See that it is of the same time." : other}` : "";
    return { words: `Imagery: ${images.map(dated).join(", ")}${ofMap.length ? `; ${ofMap.join(", ")}` : ""}.${doubt}`, isBad: Boolean(lost.length && !unknown) };
  };
})(window.covermap);
