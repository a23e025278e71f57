// Labelling: the point one is at, its class, undo and redo, and saving each label at once.
(function (covermap) {
  "use strict";

  const at = {}; // by layer id: index of the point
  const done = []; // {layer, point, before, after}
  const undone = [];
  const unsaved = new Map(); // "layer id/point id" -> {layer, point, reference}, until the file holds it
  let saving = false;
  let problem = "";

  const reference = (point) => (covermap.isLabelled(point) ? point.reference : null);

  covermap.labelLayer = () => covermap.layer(covermap.state.labelling) || null;

  /** The point that is labelled now, or null. */
  covermap.labelPoint = function () {
    const layer = covermap.labelLayer();
    return layer ? layer.points[at[layer.id] || 0] : null;
  };

  covermap.labelIndex = () => at[covermap.state.labelling] || 0;

  covermap.labelStatus = () => ({ unsaved: unsaved.size, saving, problem, canUndo: done.length > 0, canRedo: undone.length > 0 });

  function goTo(layer, index) {
    at[layer.id] = Math.min(Math.max(index, 0), layer.points.length - 1);
    covermap.tell("label-point", covermap.labelPoint());
  }

  covermap.labelGo = function (index) {
    const layer = covermap.labelLayer();
    if (layer) goTo(layer, index);
  };

  /** To the next point without a label, round the end; false where all have one. */
  covermap.labelNext = function () {
    const layer = covermap.labelLayer();
    const count = layer.points.length;
    for (let step = 1; step <= count; step++) {
      const index = (covermap.labelIndex() + step) % count;
      if (!covermap.isLabelled(layer.points[index])) {
        goTo(layer, index);
        return true;
      }
    }
    return false;
  };

  /** Send one label; an Error unless the server says that the file holds just this. */
  async function post({ layer, point, reference }) {
    const answer = await covermap.ask(`labels/${layer.id}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Covermap-Token": covermap.view.token || "" },
      body: JSON.stringify({ point: point.id, reference }),
    });
    const written = (await answer.json()).reference;
    if (written !== reference) throw new Error(`the file now holds ${written} for point ${point.id}, not ${reference}`);
  }

  /** Save what is not saved, one after the other; what fails is kept, and does not hold up the others. */
  covermap.saveLabels = async function () {
    if (saving) return;
    saving = true;
    problem = "";
    covermap.tell("label-saved");
    const tried = new Set();
    const untried = () => [...unsaved].find(([, label]) => !tried.has(label));
    for (let next = untried(); next; next = untried()) {
      const [key, label] = next;
      tried.add(label);
      try {
        await post(label);
        if (unsaved.get(key) === label) unsaved.delete(key); // else it was changed meanwhile
      } catch (error) {
        problem = error.message;
      }
    }
    saving = false;
    covermap.tell("label-saved");
  };

  function give(layer, point, value) {
    point.reference = value;
    unsaved.set(`${layer.id}/${point.id}`, { layer, point, reference: value });
    covermap.saveLabels();
  }

  /** Give the current point a class (null: none) and, if wanted, go on to the next one without. */
  covermap.label = function (value, goOn) {
    const layer = covermap.labelLayer();
    const point = covermap.labelPoint();
    if (!point) return;
    const before = reference(point);
    if (before !== value) {
      done.push({ layer, point, before, after: value });
      undone.length = 0;
      give(layer, point, value);
    }
    if (!goOn || value === null || !covermap.labelNext()) covermap.tell("label-point", point);
  };

  function again(from, to, which) {
    const step = from.pop();
    if (!step) return;
    to.push(step);
    if (covermap.labelLayer() !== step.layer) covermap.set({ labelling: step.layer.id });
    give(step.layer, step.point, step[which]);
    goTo(step.layer, step.layer.points.indexOf(step.point));
  }

  covermap.labelUndo = () => again(done, undone, "before");
  covermap.labelRedo = () => again(undone, done, "after");

  /** Labelling begins at the first point without a label. */
  covermap.on("state", ({ changes }) => {
    const layer = covermap.labelLayer();
    if (!("labelling" in changes) || !layer || layer.id in at) return;
    const first = layer.points.findIndex((point) => !covermap.isLabelled(point));
    at[layer.id] = Math.max(first, 0);
  });

  window.addEventListener("beforeunload", (event) => {
    if (unsaved.size) event.preventDefault();
  });
})(window.covermap);
