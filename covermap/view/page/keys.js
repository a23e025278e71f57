// What the keys do, in one table: it drives the page and is shown in the help.
(function (covermap) {
  "use strict";

  const { $, el } = covermap;
  const STEP_PX = 120;
  let map;
  let lastOpacity = 80;

  const pan = (x, y) => (event) => map.panBy([x * (event.shiftKey ? 3 : 1), y * (event.shiftKey ? 3 : 1)]);
  const labelling = () => Boolean(covermap.labelLayer());
  const browsing = () => !labelling();

  function inspectCentre() {
    const { lat, lng } = map.getCenter();
    covermap.inspect(lng, lat);
  }

  function toggleMap() {
    const { opacity } = covermap.state;
    if (opacity) lastOpacity = opacity;
    covermap.set({ opacity: opacity ? 0 : lastOpacity }, "view");
  }

  function toggleChanged() {
    if (covermap.changeLayer()) covermap.set({ changedOnly: !covermap.state.changedOnly });
    else covermap.say("There is no change map here.");
  }

  function startLabelling() {
    const layer = covermap.ofKind("points").find((one) => one.editable);
    const [first] = covermap.ofKind("points");
    if (layer && !covermap.view.static) covermap.startLabellingOf(layer);
    else covermap.say(first ? covermap.whyNotLabelled(first) : "There are no sample points here.");
  }

  function nthLayer(event) {
    const layer = covermap.choices()[+event.key - 1];
    if (layer) covermap.set(covermap.state.swipe ? { left: layer.id } : { main: layer.id });
  }

  function stepPoint(step) {
    covermap.labelGo(covermap.labelIndex() + step);
  }

  function escape() {
    if (!$("problem").hidden) $("problem").hidden = true;
    else if (!$("inspect").hidden) covermap.closeInspect();
    else if (labelling()) covermap.set({ labelling: "" });
  }

  const digits = [..."123456789"];

  // [keys, as shown, words, act, when]
  const TABLE = [
    [["ArrowLeft"], "← → ↑ ↓", "move the map (with Shift: further)", pan(-STEP_PX, 0)],
    [["ArrowRight"], null, null, pan(STEP_PX, 0)],
    [["ArrowUp"], null, null, pan(0, -STEP_PX)],
    [["ArrowDown"], null, null, pan(0, STEP_PX)],
    [["+", "="], "+ −", "zoom in, out", () => map.zoomIn()],
    [["-", "_"], null, null, () => map.zoomOut()],
    [["0"], "0", "show all", () => covermap.showAll(), browsing],
    [digits, "1 … 9", "show the layer of that number (with swipe: on the left)", nthLayer, browsing],
    [["["], "[ ]", "the layer before, after", () => covermap.stepLayer(-1)],
    [["]"], null, null, () => covermap.stepLayer(1)],
    [["s"], "S", "swipe two layers; the handle moves by ← →, with Shift further", () => covermap.toggleSwipe()],
    [["o"], "O", "map see-through, and back", toggleMap, browsing],
    [["c"], "C", "changed pixels only", toggleChanged, browsing],
    [["p"], "P", "sample points", () => covermap.set({ points: !covermap.state.points }), browsing],
    [["i"], "I, Enter on the map", "values at the centre of the map", inspectCentre, browsing],
    [["t"], "T", "light or dark", () => covermap.toggleTheme(), browsing],
    [["l"], "L", "label sample points, and leave it", () => (labelling() ? covermap.set({ labelling: "" }) : startLabelling())],
    [["?"], "?", "this help", () => $("help").showModal()],
    [["Escape"], "Esc", "close what is open; leave labelling", escape],
    [["n"], "N", "labelling: the next point without a label", () => covermap.labelNext(), labelling],
    [["PageUp", "p"], "Page up, page down", "labelling: the point before, after", () => stepPoint(-1), labelling],
    [["PageDown"], null, null, () => stepPoint(1), labelling],
    [["u"], "U, Ctrl+Z", "labelling: undo (steps are forgotten when the page is loaded again; labels are in the file)", () => covermap.labelUndo(), labelling],
    [["U"], "Shift+U, Ctrl+Y", "labelling: redo", () => covermap.labelRedo(), labelling],
    [["Delete", "Backspace"], "Delete", "labelling: no class", () => covermap.label(null, false), labelling],
    [[], "1 … 9, 0, A …", "labelling: the class with that key", null],
  ];

  const REPEATED = /^(Arrow|Page)|^[+=_-]$/; // what a held key may do again; a label it gives once

  /** Does the focused control use this key itself? */
  function isTaken(event) {
    const node = event.target;
    if (node.closest("dialog[open], select, textarea")) return true; // a closed one keeps the focus until the next frame
    if (!node.matches("input")) return false;
    if (node.type === "number") return event.key !== "Escape";
    return /^(Arrow|Page|Home|End)/.test(event.key) && node.type !== "checkbox";
  }

  function withControl(event) {
    if (!labelling() || event.altKey) return;
    const key = event.key.toLowerCase();
    const act = key === "y" || (key === "z" && event.shiftKey) ? covermap.labelRedo : key === "z" ? covermap.labelUndo : null;
    if (!act) return;
    event.preventDefault();
    act();
  }

  function onKey(event) {
    if (isTaken(event)) return undefined;
    if (event.repeat && !REPEATED.test(event.key)) {
      if (event.target.closest("button")) event.preventDefault(); // Enter, held, would press it again and again
      return undefined;
    }
    if (event.ctrlKey || event.metaKey) return withControl(event);
    if (event.altKey || (!$("keys-on").checked && event.key.length === 1)) return undefined;
    if (event.key === "Enter" && event.target === map.getContainer() && browsing()) return inspectCentre();
    const onlyLetter = event.key.length === 1 ? [event.key, event.key.toLowerCase()] : [event.key];
    let row = null;
    for (const key of onlyLetter) row = row || TABLE.find(([keys, , , , when]) => keys.includes(key) && (!when || when()));
    if (row) {
      event.preventDefault();
      return row[3](event);
    }
    const code = labelling() && event.key.length === 1 ? covermap.labelOfKey(event.key) : undefined;
    if (code !== undefined) covermap.label(code, covermap.labelGoesOn());
    return undefined;
  }

  covermap.startKeys = function (theMap) {
    map = theMap;
    document.addEventListener("keydown", onKey);
    $("help-open").addEventListener("click", () => $("help").showModal());
    $("help-close").addEventListener("click", () => $("help").close());
    covermap.render($("help-keys"), el("dl", {}, TABLE.filter(([, shown]) => shown).map(([, shown, words]) =>
      el("div", { className: "row" }, el("dt", {}, el("kbd", {}, shown)), el("dd", {}, words)))));
  };
})(window.covermap);
