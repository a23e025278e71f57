// The swipe: a handle that is dragged or moved by keys, and the two sides cut off along it.
(function (covermap) {
  "use strict";

  const { $ } = covermap;
  let map;

  const inView = (split) => Math.min(1, Math.max(0, split));

  const BUTTONS_PX = 52; // the zoom's, at the left edge
  const HANDLE_PX = 36;
  const BESIDE_PX = 26; // from the handle's edge to a name
  const AROUND_PX = 16; // the handle's half, and a margin

  /** The name of a side takes no more room than that side has, and none where it could not be read. */
  function room(side, px) {
    const tag = $(`tag-${side}`);
    tag.style.maxWidth = `${Math.max(0, px - AROUND_PX)}px`;
    tag.style.visibility = px - AROUND_PX < 60 ? "hidden" : "";
  }

  /** Cut the panes along the handle; they move with the map, so in its coordinates. */
  function cut() {
    const { swipe, split } = covermap.state;
    const size = map.getSize();
    const from = map.containerPointToLayerPoint([0, 0]);
    const to = from.add(size);
    const x = swipe ? from.x + size.x * split : to.x;
    const box = (x0, x1) => `polygon(${x0}px ${from.y}px, ${x1}px ${from.y}px, ${x1}px ${to.y}px, ${x0}px ${to.y}px)`;
    map.getPane("left").style.clipPath = box(from.x, x);
    map.getPane("right").style.clipPath = box(x, to.x);
    $("swipe").style.left = `${100 * split}%`;
    room("left", size.x * split - BUTTONS_PX);
    room("right", size.x * (1 - split));
    $("tag-right").style.left = `${Math.max(BESIDE_PX, BUTTONS_PX + HANDLE_PX / 2 - size.x * split)}px`;
  }

  function words() {
    const handle = $("swipe");
    const { left, right } = covermap.shown();
    handle.hidden = !right;
    if (!right) return;
    const percent = Math.round(covermap.state.split * 100);
    const names = [left, right].map(({ top }) => (top ? covermap.layerName(top) : "nothing"));
    $("tag-left").textContent = names[0];
    $("tag-right").textContent = names[1];
    handle.setAttribute("aria-label", `Swipe: ${names[0]} on the left, ${names[1]} on the right`);
    handle.setAttribute("aria-valuenow", percent);
    handle.setAttribute("aria-valuetext", `${percent} percent of the width is on the left`);
  }

  function move(split) {
    covermap.set({ split: inView(split) }, "view");
  }

  function onKey(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const to = {
      ArrowLeft: covermap.state.split - step, ArrowRight: covermap.state.split + step,
      ArrowDown: covermap.state.split - step, ArrowUp: covermap.state.split + step,
      PageDown: covermap.state.split - 0.1, PageUp: covermap.state.split + 0.1, Home: 0, End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    move(to);
  }

  function startDragging(handle) {
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = map.getContainer().getBoundingClientRect();
      move((event.clientX - box.left) / box.width);
    });
  }

  covermap.startSwipe = function (theMap) {
    map = theMap;
    const handle = $("swipe");
    startDragging(handle);
    handle.addEventListener("keydown", onKey);
    map.on("move zoomend resize viewreset", cut);
    covermap.on("state", () => {
      cut();
      words();
    });
    cut();
    words();
  };
})(window.covermap);
