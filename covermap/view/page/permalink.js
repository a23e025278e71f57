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
    const hidden = Object.entries(state.hidden).filter(([, indices]) => indices.length);
    for (const [id, indices] of hidden) link.append("h", `${id}/${listed(indices.map((i) => covermap.layer(id).classes[i].code))}`);
    for (const [id, part] of Object.entries(state.part)) link.append("p", `${id}/${part}`);
    for (const layer of view.layers.filter((one) => one.kind === "image" && state.looks[one.bands.join()])) {
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

  function looksOf(values) {
    const looks = {};
    for (const value of values) {
      const [id, numbers, stretch, preset] = value.split("/");
      const layer = covermap.layer(id);
      if (!layer || layer.kind !== "image") continue;
      const bands = numbers.split(".").map((i) => layer.bands[i]);
      if ([1, 3].includes(bands.length) && bands.every(Boolean) && layer.stretches.includes(+stretch)) {
        looks[layer.bands.join()] = { bands, stretch: +stretch, preset: +preset };
      }
    }
    return looks;
  }

  function hiddenOf(values) {
    const hidden = {};
    for (const value of values) {
      const [id, codes] = value.split("/");
      const layer = covermap.layer(id);
      if (!layer || !layer.classes) continue;
      hidden[id] = codes.split(".").map((code) => layer.classes.findIndex((one) => one.code === +code)).filter((i) => i >= 0);
    }
    return hidden;
  }

  /** The state that a link names; what it names and is not here is left as it comes. */
  function read(link) {
    const found = { ...known };
    const ids = [];
    const pick = (name, id) => {
      ids.push(id);
      if (covermap.layer(id)) found[name] = id;
    };
    if (link.has("l")) pick("main", link.get("l"));
    if (link.has("s")) {
      const [left, right, split] = link.get("s").split("/");
      pick("left", left);
      pick("right", right);
      Object.assign(found, { swipe: true, split: Math.min(1, Math.max(0, +split || 0)) });
    }
    if (link.get("b") === "-") found.base = "";
    else if (link.has("b")) pick("base", link.get("b"));
    if (link.has("o")) found.opacity = Math.min(100, Math.max(0, +link.get("o") || 0));
    if (link.has("points")) found.points = link.get("points") === "1";
    found.hidden = hiddenOf(link.getAll("h"));
    found.part = Object.fromEntries(link.getAll("p").map((value) => value.split("/")).map(([id, part]) => [id, +part]));
    found.looks = looksOf(link.getAll("i"));
    Object.assign(found, { changedOnly: link.get("c") === "1", from: link.get("from") || "", to: link.get("to") || "" });
    const points = covermap.layer(link.get("label"));
    found.labelling = points && points.editable && !covermap.view.static ? points.id : "";
    found.blind = link.get("seen") !== "1";
    const missing = ids.filter((id) => id && !covermap.layer(id));
    if (missing.length) covermap.say(`The link names layers that are not open here: ${missing.join(", ")}.`, true);
    return found;
  }

  function restore() {
    const link = new URLSearchParams(location.hash.slice(1));
    restoring = true;
    covermap.set(read(link));
    const view = (link.get("v") || "").split("/").map(Number);
    if (view.length === 3 && view.every(Number.isFinite)) map.setView([view[2], view[1]], view[0], { animate: false });
    else if (!covermap.state.labelling) covermap.showAll(true);
    restoring = false;
  }

  covermap.startPermalink = function (theMap) {
    map = theMap;
    known = { ...covermap.state };
    restore();
    const soon = covermap.later(() => keep(false), 250);
    map.on("moveend", soon);
    covermap.on("state", ({ why }) => (why === "view" ? soon() : keep(true)));
    window.addEventListener("popstate", restore);
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
