// Starts the page: gets the view, makes the map, and starts each part with it.
(function (covermap) {
  "use strict";

  const { $, el } = covermap;
  const CROPPED = 1.35; // at first, the map may be this much larger than the window: half a zoom step on the way to filling it
  let map;

  /** A box in the window, at a whole zoom: then pixels of the map are whole pixels of the screen. */
  function fit(box, mayCrop) {
    const { frame } = covermap.view;
    const zoom = map.getBoundsZoom(box);
    const next = map.getSize().divideBy(map.getZoomScale(zoom + 1, frame.native)); // the window at the next zoom, in frame pixels
    const fills = box.getEast() - box.getWest() < CROPPED * next.x && box.getNorth() - box.getSouth() < CROPPED * next.y;
    map.setView(box.getCenter(), mayCrop && fills ? zoom + 1 : zoom, { animate: false });
  }

  covermap.showAll = function () {
    const { frame, layers } = covermap.view;
    const boxes = layers.filter((layer) => layer.bounds).map((layer) => covermap.boundsOf(layer.bounds));
    const all = boxes.reduce((whole, box) => whole.extend(box), L.latLngBounds(boxes.slice(0, 1)));
    fit(all.isValid() ? all : covermap.boundsOf([0, 0, frame.width, frame.height]));
  };

  /** What lies on top, for layers may be far apart. */
  covermap.showFirst = function () {
    const { left, right } = covermap.shown();
    const first = left.top || (right && right.top);
    if (first) fit(covermap.boundsOf(first.bounds), true);
    else covermap.showAll();
  };

  /** A layer that is chosen and lies out of view is gone to. */
  function follow({ changes }) {
    if (covermap.state.labelling || "labelling" in changes) return;
    const [chosen] = ["main", "left", "right"].filter((name) => name in changes).map((name) => covermap.layer(changes[name]));
    if (!chosen || !covermap.onMap().includes(chosen)) return;
    const box = covermap.boundsOf(chosen.bounds);
    if (!map.getBounds().intersects(box)) fit(box, true);
  }

  covermap.toggleSwipe = function () {
    const can = covermap.choices().length > 1;
    if (can) covermap.set({ swipe: !covermap.state.swipe });
    else covermap.say("A swipe needs two layers.");
  };

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    $("theme").setAttribute("aria-label", theme === "dark" ? "Use the light colours" : "Use the dark colours");
  }

  covermap.toggleTheme = function () {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(theme);
    try {
      localStorage.setItem("covermap theme", theme);
    } catch {
      // a browser that keeps nothing follows the system next time
    }
  };

  function startTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)");
    let chosen = null;
    try {
      chosen = localStorage.getItem("covermap theme");
    } catch {
      chosen = null;
    }
    setTheme(chosen || (system.matches ? "dark" : "light"));
    if (!chosen) system.addEventListener("change", () => setTheme(system.matches ? "dark" : "light"));
    $("theme").addEventListener("click", covermap.toggleTheme);
  }

  function startPanel() {
    const button = $("panel-toggle");
    button.addEventListener("click", () => {
      const isClosed = document.body.classList.toggle("closed");
      const words = isClosed ? "Show the panel" : "Hide the panel";
      button.setAttribute("aria-expanded", String(!isClosed));
      button.setAttribute("aria-label", words);
      button.title = words;
      map.invalidateSize({ animate: false });
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address holds the view
      $("panel").focus();
    });
    $("problem-close").addEventListener("click", () => ($("problem").hidden = true));
    $("zoom-in").addEventListener("click", () => map.zoomIn());
    $("zoom-out").addEventListener("click", () => map.zoomOut());
    $("zoom-all").addEventListener("click", () => covermap.showAll());
    $("zoom-native").addEventListener("click", () => map.setZoom(covermap.view.frame.native));
    new ResizeObserver(() => map.invalidateSize({ animate: false })).observe($("map"));
  }

  function showNotes({ skipped, notes }) {
    const lines = [...(notes || []), ...(skipped || []).map((words) => `Left out: ${words}`)];
    $("notes").hidden = !lines.length;
    const list = el("ul", {}, lines.map((line) => el("li", {}, line)));
    covermap.render($("notes"), el("details", {}, el("summary", {}, `Notes (${lines.length})`), list));
  }

  /** The token is in a cookie by now: it is not to be copied with the address. */
  function forgetToken() {
    const query = new URLSearchParams(location.search);
    if (!query.has("token")) return;
    query.delete("token");
    const rest = query.size ? `?${query}` : "";
    history.replaceState(null, "", `${location.pathname}${rest}${location.hash}`);
  }

  function start(view) {
    covermap.view = view;
    document.title = `${view.title} – covermap`;
    $("title").textContent = view.title;
    covermap.startState();
    map = L.map("map", {
      crs: covermap.frameCrs(view.frame), attributionControl: false, zoomControl: false, keyboard: false, fadeAnimation: false,
      minZoom: -3, maxZoom: view.frame.native + 5,
    });
    map.createPane("marks").style.zIndex = 430;
    map.getPane("marks").classList.add("through");
    covermap.map = map;
    $("map").tabIndex = 0;
    covermap.showFirst();
    startPanel();
    showNotes(view);
    covermap.on("view", showNotes);
    covermap.startSides(map);
    covermap.startSwipe(map);
    covermap.startLayers();
    covermap.startLegend();
    covermap.startArea(map);
    covermap.startInspect(map);
    covermap.startSamples(map);
    covermap.startLabelling(map);
    covermap.startScale(map, view.frame);
    covermap.startKeys(map);
    covermap.startPermalink(map);
    covermap.on("state", follow);
    forgetToken();
    document.body.classList.add("ready");
  }

  async function open() {
    const view = covermap.view || (await (await covermap.ask("view.json")).json());
    start(view);
  }

  startTheme();
  open().catch((error) => covermap.say(`Nothing to show: ${error.message}`, true));
})(window.covermap);
