// Labelling: the point one is at, its class, undo and redo, and saving each label at once.
(function (covermap) {
  "use strict";

  const at = new Map(); // layer id -> index of the point
  const done = []; // {layer, point, before, after}
  const undone = [];
  const unsaved = new Map(); // "layer id/point id" -> {layer, point, reference}, until the file holds it
  const held = new Map(); // "layer id/point id" -> what the file holds as far as is known, of points that were changed here
  const unanswered = new Map(); // "layer id/point id" -> what was sent last and never answered
  const TOLD = 2; // of the sentences below, at once
  const refused = []; // sentences about labels that somebody else gave meanwhile
  let saving = false;
  let problem = "";

  const reference = (point) => (covermap.isLabelled(point) ? point.reference : null);

  covermap.labelLayer = () => covermap.layer(covermap.state.labelling) || null;

  /** The point that is labelled now, or null. */
  covermap.labelPoint = function () {
    const layer = covermap.labelLayer();
    return layer ? layer.points[covermap.labelIndex()] : null;
  };

  covermap.labelIndex = () => at.get(covermap.state.labelling) || 0;

  covermap.labelStatus = () => ({ unsaved: unsaved.size, saving, problem, canUndo: done.length > 0, canRedo: undone.length > 0 });

  function goTo(layer, index) {
    at.set(layer.id, Math.min(Math.max(Math.floor(index) || 0, 0), layer.points.length - 1));
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

  const keyOf = ({ layer, point }) => `${layer.id}/${point.id}`;

  /** Send one label with what it replaces; an Error unless the server says that the file holds just this. */
  async function post(label) {
    const { layer, point, reference } = label;
    const key = keyOf(label);
    let written;
    try {
      const answer = await covermap.post(`labels/${layer.id}`, {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ point: point.id, reference, before: held.get(key) }),
      });
      written = (await answer.json()).reference;
    } catch (error) {
      if (!error.status) unanswered.set(key, reference); // it may have been written all the same
      const isOurs = error.status === 409 && unanswered.has(key) && unanswered.get(key) === error.told.reference;
      if (!isOurs) throw error;
      held.set(key, error.told.reference);
      unanswered.delete(key);
      return post(label);
    }
    if (written !== reference) throw new Error(`the file now holds ${written} for point ${point.id}, not ${reference}`);
    unanswered.delete(key);
    return held.set(key, reference);
  }

  /** A point is what the file says: what was done to it here can no longer be undone, for that would undo others' work. */
  function takeOver({ layer, point }, value) {
    point.reference = value;
    held.set(keyOf({ layer, point }), value);
    unsaved.delete(keyOf({ layer, point }));
    for (const steps of [done, undone]) steps.splice(0, Infinity, ...steps.filter((step) => step.point !== point));
  }

  /** The sample as the file has it by now, in the objects that are here; labels that are not saved yet stay. */
  covermap.renewSample = function (layer, fresh) {
    if (!layer) return fresh;
    const known = new Map(layer.points.map((point) => [point.id, point]));
    const points = fresh.points.map((given) => {
      const point = known.get(given.id);
      if (!point) return given;
      const key = keyOf({ layer, point });
      const here = point.reference;
      Object.assign(point, given);
      if (unsaved.has(key)) point.reference = here;
      else if (held.has(key) && reference(point) !== held.get(key)) takeOver({ layer, point }, reference(point));
      return point;
    });
    return Object.assign(layer, fresh, { points });
  };

  function sayRefused({ layer, point, reference }, { reference: value, error }) {
    const name = (code) => (layer.legend.find((one) => one.code === code) || { name: code === null ? "no class" : code }).name;
    if (covermap.$("problem").hidden) refused.length = 0; // those before were read
    const why = error || `the file says ${name(value)} by now`;
    refused.push(`Point ${point.id} keeps “${name(value)}” and was not given “${name(reference)}”: ${why}.`);
    const before = refused.length - TOLD;
    const others = before > 0 ? `${before} more ${before === 1 ? "point keeps" : "points keep"} what somebody else gave. ` : "";
    covermap.say(others + refused.slice(-TOLD).join(" "), true);
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
        if (error.status === 409 && "reference" in error.told) {
          takeOver(label, error.told.reference);
          if (error.told.reference !== label.reference) sayRefused(label, error.told);
          covermap.tell("label-taken", label.point);
        } else problem = error.message;
      }
    }
    saving = false;
    covermap.tell("label-saved");
  };

  function give(layer, point, value) {
    const key = keyOf({ layer, point });
    if (!held.has(key)) held.set(key, reference(point));
    point.reference = value;
    unsaved.set(key, { layer, point, reference: value });
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
    if (goOn && value !== null && covermap.labelNext()) return;
    covermap.tell("label-point", point);
    if (layer.points.every(covermap.isLabelled)) covermap.say("All points are labelled: Assess tells accuracy and areas.");
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
    if (!("labelling" in changes) || !layer || at.has(layer.id)) return;
    const first = layer.points.findIndex((point) => !covermap.isLabelled(point));
    at.set(layer.id, Math.max(first, 0));
  });

  window.addEventListener("beforeunload", (event) => {
    if (unsaved.size) event.preventDefault();
  });
})(window.covermap);
