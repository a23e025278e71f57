// Leaflet layers: data tiles that are painted here, and tiles of imagery.
(function (covermap) {
  "use strict";

  let failed = 0;
  let awaited = 0;

  /** While tiles are awaited, the map says that it is busy. */
  function track(promise) {
    const count = (step) => {
      awaited += step;
      covermap.$("map").setAttribute("aria-busy", String(awaited > 0));
    };
    count(1);
    return promise.finally(() => count(-1));
  }

  function fail(layer, error) {
    if (!covermap.isCurrent(layer)) return; // a later one is drawn in its place
    if (error.status === 409) {
      covermap.renew().then((changed) => changed.length || tell(layer, error), (other) => tell(layer, other));
    } else tell(layer, error);
  }

  function tell(layer, error) {
    failed += 1;
    covermap.say(`${layer.name}: ${error.message}${failed > 1 ? ` (${failed} tiles are missing so far)` : ""}`, true);
  }

  function options(layer, pane) {
    const { frame } = covermap.view;
    return {
      pane, tileSize: frame.tile_px, bounds: covermap.boundsOf(layer.bounds), noWrap: true, keepBuffer: 1,
      minNativeZoom: 0, maxNativeZoom: frame.native, minZoom: -8, maxZoom: frame.native + 8, updateWhenZooming: false,
    };
  }

  /** A layer of numbers: each tile a canvas, painted again without fetching when the state changes. */
  const DataLayer = L.GridLayer.extend({
    initialize(layer, pane) {
      L.setOptions(this, options(layer, pane));
      this.layer = layer;
      this._drawn = new WeakMap(); // canvas -> {at, part, numbers}
    },

    createTile(at, done) {
      const side = covermap.view.frame.tile_px;
      const canvas = covermap.el("canvas", { width: side, height: side, className: "tile" });
      this._drawn.set(canvas, { at, part: null, numbers: null });
      track(this._fill(canvas)).then(() => done(null, canvas), (error) => done(error, canvas));
      return canvas;
    },

    repaint() {
      for (const { el } of Object.values(this._tiles)) track(this._fill(el)).catch(() => {}); // said already
    },

    async _fill(canvas) {
      const kept = this._drawn.get(canvas);
      const { z, x, y } = kept.at;
      const part = this.layer.kind === "probabilities" ? covermap.own(covermap.state.part, this.layer.id) || 0 : null;
      const change = covermap.filters() && this.layer.kind !== "change" ? covermap.changeLayer() : null;
      const turn = (kept.turn = (kept.turn || 0) + 1);
      try {
        if (!kept.numbers || kept.part !== part) {
          const numbers = await covermap.numbers(this.layer, z, x, y, part);
          Object.assign(kept, { numbers, part });
        }
        const mask = change && (await covermap.numbers(change, z, x, y));
        if (turn !== kept.turn) return; // a later call paints
        if (!kept.numbers || (change && !mask)) {
          canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
          return;
        }
        const passing = mask && covermap.maskTable(change);
        covermap.paint(canvas, kept.numbers, covermap.colours(this.layer), mask, passing);
      } catch (error) {
        fail(this.layer, error);
        throw error;
      }
    },
  });

  /** Address of a tile of an image as it is to be drawn now. */
  covermap.imageUrl = function (layer, { z, x, y }) {
    const look = covermap.lookOf(layer);
    if (covermap.view.static) return `tiles/${layer.id}/${look.preset}/${z}/${x}/${y}.jpg`;
    const bands = look.bands.map(encodeURIComponent).join(",");
    return `tiles/${layer.id}/${z}/${x}/${y}.jpg?bands=${bands}&stretch=${look.stretch}&v=${layer.version || ""}`;
  };

  const ImageLayer = L.GridLayer.extend({
    initialize(layer, pane) {
      L.setOptions(this, options(layer, pane));
      this.layer = layer;
    },

    createTile(at, done) {
      const image = covermap.el("img", { className: "tile", alt: "" });
      if (!covermap.hasTile(covermap.view.frame, this.layer, at.z, at.x, at.y)) {
        setTimeout(done, 0, null, image);
        return image;
      }
      track(this._load(image, covermap.imageUrl(this.layer, at))).then(() => done(null, image), (error) => {
        fail(this.layer, error);
        done(error, image);
      });
      return image;
    },

    async _load(image, url) {
      if (covermap.view.static) {
        image.src = url;
        await image.decode().catch(() => {
          throw new Error(`${url} is missing or broken; write the folder again`);
        });
        return;
      }
      const answer = await covermap.ask(url);
      if (answer.status === 204) return; // nothing there
      image.src = URL.createObjectURL(await answer.blob());
      await image.decode().finally(() => URL.revokeObjectURL(image.src));
    },
  });

  covermap.leafletLayer = function (layer, pane) {
    return layer.kind === "image" ? new ImageLayer(layer, pane) : new DataLayer(layer, pane);
  };
})(window.covermap);
