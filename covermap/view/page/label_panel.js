// The panel of labelling, and the crosshair on the pixel that is to be named.
(function (covermap) {
  "use strict";

  const { $, el, button } = covermap;
  const LETTERS = "abdefghijkmoqrtvwxyz"; // c, l, n, p, s and u mean other things
  const SHOWN = ["blind", "main", "base", "swipe", "left", "right"];
  const KEYS = [..."1234567890", ...LETTERS];
  let map;
  let cross = null;
  let goOn = true;
  let assessed = null;
  let assessing = false;

  /** Code of the class that a key gives, or undefined. */
  covermap.labelOfKey = function (key) {
    const entry = covermap.labelLayer().legend[KEYS.indexOf(key.toLowerCase())];
    return entry && KEYS.includes(key.toLowerCase()) ? entry.code : undefined;
  };

  covermap.labelGoesOn = () => goOn;

  /** The pixel's outline, and four lines that point at it without covering it. */
  function drawCross(point) {
    if (cross) cross.remove();
    cross = null;
    if (!point) return;
    const size = covermap.labelLayer().pixel || 1;
    const { x, y } = point;
    const half = size / 2;
    const lines = [[[y, x - 6 * size], [y, x - 1.5 * size]], [[y, x + 1.5 * size], [y, x + 6 * size]],
      [[y - 6 * size, x], [y - 1.5 * size, x]], [[y + 1.5 * size, x], [y + 6 * size, x]]];
    const box = covermap.boundsOf([x - half, y - half, x + half, y + half]);
    const twice = (make) => [make("outline halo"), make("outline")];
    cross = L.layerGroup([
      ...twice((className) => L.rectangle(box, { className, fill: false, interactive: false, pane: "marks" })),
      ...twice((className) => L.polyline(lines, { className, interactive: false, pane: "marks" })),
    ]).addTo(map);
  }

  function show(point) {
    drawCross(point);
    if (!point) return;
    map.setView([point.y, point.x], Math.max(map.getZoom(), covermap.view.frame.native + 3), { animate: false });
    draw();
  }

  function progress(layer) {
    const labelled = layer.points.filter(covermap.isLabelled).length;
    const words = `${labelled} of ${layer.points.length} labelled`;
    return [
      el("progress", { max: layer.points.length, value: labelled, "aria-label": words }),
      el("p", { className: "hint", id: "label-count" }, words),
    ];
  }

  function steps(layer, point) {
    const leave = () => map.getContainer().focus({ preventScroll: true }); // else the next class's key is typed into the field
    let isTyping = false;
    const jump = el("input", {
      type: "number", id: "label-jump", min: 1, max: layer.points.length, value: covermap.labelIndex() + 1,
      onkeydown: (event) => {
        isTyping = event.key !== "Enter";
        if (isTyping) return;
        event.preventDefault();
        covermap.labelGo(+jump.value - 1);
        leave();
      },
      onchange: () => {
        covermap.labelGo(+jump.value - 1);
        if (!isTyping) leave();
      },
    });
    return [
      el("div", { className: "line steps" },
        button("label-previous", "‹ Back", () => covermap.labelGo(covermap.labelIndex() - 1), { title: "Page up" }),
        el("label", { className: "line", for: "label-jump" }, "Point", jump, el("span", {}, `of ${layer.points.length}`)),
        button("label-following", "Next ›", () => covermap.labelGo(covermap.labelIndex() + 1), { title: "Page down" })),
      el("div", { className: "line" },
        button("label-next", "Next unlabelled", () => covermap.labelNext(), {
          title: "N", disabled: layer.points.every((one) => one === point || covermap.isLabelled(one)),
        }),
        el("span", { className: "grow" }),
        el("span", { className: "hint" }, `id ${point.id}`)),
    ];
  }

  function classButtons(layer, point) {
    const counts = new Map();
    for (const { reference } of layer.points) counts.set(reference, (counts.get(reference) || 0) + 1);
    return el("div", { className: "labels", role: "group", "aria-label": "Class of the pixel" },
      layer.legend.map((entry, i) =>
        button(`label-class-${i}`, "", () => covermap.label(entry.code, goOn), {
          "aria-pressed": String(point.reference === entry.code), "data-code": entry.code,
        })).map((made, i) => {
        const entry = layer.legend[i];
        made.append(KEYS[i] ? el("kbd", { "aria-hidden": "true" }, KEYS[i].toUpperCase()) : "", covermap.swatch(entry.colour),
          el("span", { className: "grow" }, entry.name), el("span", { className: "amount" }, String(counts.get(entry.code) || 0)));
        return made;
      }));
  }

  function edit(point) {
    const { canUndo, canRedo } = covermap.labelStatus();
    return el("div", { className: "line" },
      button("label-undo", "Undo", covermap.labelUndo, { disabled: !canUndo, title: "U or Ctrl+Z" }),
      button("label-redo", "Redo", covermap.labelRedo, { disabled: !canRedo, title: "Shift+U or Ctrl+Y" }),
      button("label-clear", "Clear", () => covermap.label(null, false), { disabled: !covermap.isLabelled(point), title: "Delete" }));
  }

  function imagery(layer) {
    const { words, isBad } = covermap.imageryWords(layer);
    return el("p", { id: "label-imagery", className: isBad ? "hint bad" : "hint" }, words);
  }

  function switches(layer, point) {
    const entry = layer.legend.find((one) => one.code === point.mapped);
    const named = entry ? entry.name : point.mapped;
    const says = named === undefined || named === null ? "" : ` The map says: ${named}.`;
    return [
      covermap.tick("label-go-on", "Go on by itself after a label", goOn, (on) => (goOn = on)),
      covermap.tick("label-blind", "Hide the maps", covermap.state.blind, (on) => covermap.set({ blind: on })),
      el("p", { className: "hint" }, covermap.state.blind
        ? "Imagery alone: who sees the map tends to agree with it, and accuracies come out too high."
        : `The maps can be seen: labels may lean towards them.${says}`),
    ];
  }

  /** One line that says whether everything is in the file. */
  function drawStatus() {
    const place = $("label-status");
    if (!place) return;
    const { unsaved, saving, problem } = covermap.labelStatus();
    place.className = problem ? "status bad" : "status";
    const kept = `${unsaved} ${unsaved === 1 ? "label is" : "labels are"} kept here, not in the file.`;
    covermap.render(place, problem
      ? [el("span", {}, `Not saved: ${covermap.sentence(problem)} ${kept}`), button("label-again", "Try again", covermap.saveLabels)]
      : el("span", {}, saving ? "Saving…" : unsaved ? kept : "Every label is saved."));
  }

  async function assess(layer) {
    if (assessing) return;
    assessing = true;
    assessed = { layer, sentence: "Assessing…" };
    draw();
    try {
      const answer = await covermap.post(`assess/${layer.id}`);
      assessed = { layer, ...(await answer.json()) };
    } catch (error) {
      assessed = { layer, sentence: `Not assessed: ${error.message}`, bad: true };
    }
    assessing = false;
    draw();
    const place = $("assessment");
    if (place) place.scrollIntoView({ block: "nearest" }); // it may lie below what the panel shows
  }

  /** "0.286 ± 0.361": the number, and its interval below it, so that a table fits the panel. */
  function estimate(text) {
    const [value, ...interval] = text.split(" ");
    return el("td", { className: "amount" }, value, interval.length ? el("small", {}, interval.join(" ")) : null);
  }

  function table({ head, rows }) {
    const row = ([name, ...values]) => el("tr", {}, el("th", { scope: "row" }, name), values.map(estimate));
    return el("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": `Table of ${head.slice(1).join(", ")}` },
      el("table", {},
        el("thead", {}, el("tr", {}, head.map((name, i) => el("th", { scope: "col", className: i ? "amount" : "" }, name)))),
        el("tbody", {}, rows.map(row))));
  }

  function assessment(layer) {
    const found = assessed && assessed.layer === layer ? assessed : null;
    return [
      el("h3", {}, "Accuracy and areas"),
      button("assess", "Assess", () => assess(layer), { disabled: assessing }),
      el("div", { id: "assessment", role: "status", className: found && found.bad ? "bad" : "" },
        found ? el("p", {}, found.sentence) : null,
        found && found.tables ? found.tables.map(table) : null,
        found && found.notes ? found.notes.map((note) => el("p", { className: "hint" }, `Note: ${note}.`)) : null,
        found && found.file ? el("p", { className: "hint" }, `Written: ${found.file}`) : null),
    ];
  }

  function draw() {
    const layer = covermap.labelLayer();
    const point = covermap.labelPoint();
    $("labelling").hidden = !layer;
    if (!layer) return;
    const status = $("label-status") || el("p", { id: "label-status", className: "status", role: "status" });
    covermap.render(
      $("labelling"),
      el("div", { className: "head" }, el("h2", {}, `Labelling ${layer.name}`),
        button("label-leave", "Done", () => covermap.set({ labelling: "" }), { title: "L" })),
      imagery(layer), progress(layer), steps(layer, point), classButtons(layer, point), edit(point), status, switches(layer, point), assessment(layer),
    );
  }

  covermap.startLabelling = function (theMap) {
    map = theMap;
    covermap.on("label-point", show);
    covermap.on("label-saved", drawStatus);
    covermap.on("label-taken", draw);
    covermap.on("state", ({ changes }) => {
      document.body.classList.toggle("labelling", Boolean(covermap.labelLayer()));
      if ("labelling" in changes) {
        show(covermap.labelPoint());
        draw();
        drawStatus();
        if (covermap.labelLayer()) $("labelling").scrollIntoView({ block: "nearest" });
      } else if (SHOWN.some((name) => name in changes)) draw();
    });
  };
})(window.covermap);
