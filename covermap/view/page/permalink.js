// The address bar holds what is shown: after # stand the view, layers, swipe, hidden classes, bands and filter.
(function (covermap) {
  "use strict";

  let map;
  let restoring = false;
  let known = null; // the state before any link was read

  const listed = (values) => values.join(".");

  function write() {
    const { state, view } = covermap;
    const { lat, lng } = map.getCenter();
    const link = new URLSearchParams();
    link.set("v", `${map.getZoom()}/${lng.toFixed(1)}/${lat.toFixed(1)}`);
    link.set("l", state.main);
    if (state.swipe) link.set("s", `${state.left}/${state.right}/${state.split.toFixed(3)}`);
    link.set("b", state.base || "-");
    if (state.opacity !== known.opacity) link.set("o", state.opacity);
    if (state.points !== known.points) link.set("points", state.points ? "1" : "0");
    const hidden = Object.entries(state.hidden).filter(([id, indices]) => indices.length && covermap.layer(id));
    for (const [id, indices] of hidden) {
      const codes = indices.map((i) => covermap.layer(id).classes[i]).filter(Boolean).map((entry) => entry.code);
      link.append("h", `${id}/${listed(codes)}`);
    }
    for (const [id, part] of Object.entries(state.part)) link.append("p", `${id}/${part}`);
    for (const layer of view.layers.filter((one) => one.kind === "image" && covermap.own(state.looks, one.bands.join()))) {
      const look = covermap.lookOf(layer);
      link.append("i", `${layer.id}/${listed(look.bands.map((name) => layer.bands.indexOf(name)))}/${look.stretch}/${look.preset}`);
    }
    if (state.changedOnly) link.set("c", "1");
    if (state.from) link.set("from", state.from);
    if (state.to) link.set("to", state.to);
    if (state.labelling) link.set("label", state.labelling);
    if (!state.blind) link.set("seen", "1");
    return `#${link.toString().replaceAll("%2F", "/")}`;
  }

  function keep(asStep) {
    if (restoring) return;
    const link = write();
    if (link === location.hash) return;
    if (asStep) history.pushState(null, "", link);
    else history.replaceState(null, "", link);
  }

  const wholes = (text) => (text || "").split(".").filter((part) => /^\d{1,6}$/.test(part)).map(Number);

  function looksOf(values) {
    const looks = Object.create(null);
    for (const value of values) {
      const [id, numbers, stretch, preset] = value.split("/");
      const layer = covermap.layer(id);
      if (!layer || layer.kind !== "image") continue;
      const bands = wholes(numbers).map((i) => layer.bands[i]);
      const own = layer.presets.findIndex((one, i) => one.bands.join() === bands.join() && (!covermap.view.static || i === +preset));
      if (![1, 3].includes(bands.length) || !bands.every(Boolean) || !layer.stretches.includes(+stretch)) continue;
      if (own >= 0 || !covermap.view.static) looks[layer.bands.join()] = { bands, stretch: +stretch, preset: own };
    }
    return looks;
  }

  function hiddenOf(values) {
    const hidden = Object.create(null);
    for (const value of values) {
      const [id, codes] = value.split("/");
      const layer = covermap.layer(id);
      if (!layer || !layer.classes) continue;
      hidden[id] = wholes(codes).map((code) => layer.classes.findIndex((one) => one.code === code)).filter((i) => i >= 0);
    }
    return hidden;
  }

  function partsOf(values) {
    const parts = Object.create(null);
    for (const [id, part] of values.map((value) => value.split("/"))) {
      const layer = covermap.layer(id);
      if (layer && layer.kind === "probabilities" && layer.classes[+part]) parts[id] = +part;
    }
    return parts;
  }

  /** A filter that there is a change for; of others nothing would pass. */
  function filterOf(link) {
    const ends = (end) => covermap.ofKind("change").flatMap((layer) => layer.classes.filter((one) => one.changed).map((one) => one[end]));
    const [from, to] = ["from", "to"].map((end) => (link.get(end) && ends(end).includes(link.get(end)) ? link.get(end) : ""));
    return { changedOnly: link.get("c") === "1" && covermap.ofKind("change").length > 0, from, to };
  }

  /** The state that a link names; what it names and is not here is left as it comes. */
  function read(link) {
    const found = { ...known };
    const ids = [];
    const pick = (name, id, kind) => {
      const layer = covermap.layer(id);
      ids.push(id);
      if (layer && layer.kind !== "points" && (!kind || layer.kind === kind)) found[name] = id;
    };
    if (link.has("l")) pick("main", link.get("l"));
    if (link.has("s")) {
      const [left, right, split] = link.get("s").split("/");
      pick("left", left);
      pick("right", right);
      Object.assign(found, { swipe: true, split: Math.min(1, Math.max(0, Number(split || 0.5) || 0)) });
    }
    if (link.get("b") === "-") found.base = "";
    else if (link.has("b")) pick("base", link.get("b"), "image");
    if (link.has("o")) found.opacity = Math.min(100, Math.max(0, +link.get("o") || 0));
    if (link.has("points")) found.points = link.get("points") === "1";
    found.hidden = hiddenOf(link.getAll("h"));
    found.part = partsOf(link.getAll("p"));
    found.looks = looksOf(link.getAll("i"));
    Object.assign(found, filterOf(link));
    const points = covermap.layer(link.get("label"));
    found.labelling = points && points.editable && !covermap.view.static ? points.id : "";
    found.blind = link.get("seen") !== "1";
    const missing = [...new Set(ids.filter((id) => id && !covermap.layer(id)))];
    return { found, missing };
  }

  /** Centre and zoom that a link names, or null where that is not near the layers. */
  function placeOf(link) {
    const { width, height } = covermap.view.frame;
    const [zoom, x, y] = (link.get("v") || "").split("/").map((part) => (part ? Number(part) : NaN));
    const isNear = Math.abs(x - width / 2) <= width && Math.abs(y - height / 2) <= height; // false of NaN
    return isNear && Number.isFinite(zoom) ? { zoom, centre: [y, x] } : null;
  }

  function restore() {
    const link = new URLSearchParams(location.hash.slice(1));
    const { found, missing } = read(link);
    restoring = true;
    try {
      covermap.set(found);
      const place = placeOf(link);
      if (place) map.setView(place.centre, place.zoom, { animate: false });
      else if (!covermap.state.labelling) covermap.showFirst();
    } finally {
      restoring = false;
    }
    return missing;
  }

  function follow() {
    const missing = restore();
    if (missing.length) covermap.say(`The link names layers that are not open here: ${missing.join(", ")}.`, true);
  }

  /** Let something change the layers; what is shown stays, by the names that a link has for it. */
  covermap.keepThrough = function (change) {
    keep(false);
    change();
    restore();
    keep(false);
  };

  covermap.startPermalink = function (theMap) {
    map = theMap;
    known = { ...covermap.state };
    follow();
    const soon = covermap.later(() => keep(false), 250);
    map.on("moveend", soon);
    covermap.on("state", ({ why }) => (why === "view" ? soon() : keep(true)));
    window.addEventListener("popstate", follow);
    covermap.$("share").addEventListener("click", async () => {
      keep(false);
      try {
        await navigator.clipboard.writeText(location.href);
        covermap.say("The link is copied.");
      } catch {
        covermap.say("Copy the link from the address bar: it holds this view.");
      }
    });
    keep(false);
  };
})(window.covermap);
