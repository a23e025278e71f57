// The frame: all layers lie on one grid of pixels, x to the right and y down from its upper left corner.
(function (covermap) {
  "use strict";

  const EARTH_M = 6378137; // radius of the sphere of EPSG:3857
  const WGS84_E2 = 0.00669437999014; // of the ellipsoid: its eccentricity, squared

  /** Leaflet's coordinate system of a frame: latLng is [y, x] in frame pixels, one of them a CSS pixel at the native zoom. */
  covermap.frameCrs = function (frame) {
    return L.extend({}, L.CRS.Simple, {
      transformation: new L.Transformation(1, 0, 1, 0),
      scale: (zoom) => Math.pow(2, zoom - frame.native),
      zoom: (scale) => Math.log2(scale) + frame.native,
    });
  };

  covermap.boundsOf = function (box) {
    return L.latLngBounds([box[1], box[0]], [box[3], box[2]]);
  };

  /** Frame pixels -> [x, y] of the frame's CRS (pixels where there is none). */
  covermap.toCrs = function (frame, x, y) {
    if (frame.unit === "px") return [x, y];
    return [frame.origin[0] + x * frame.resolution, frame.origin[1] - y * frame.resolution];
  };

  /** [lon, lat] where the page can tell it by itself: Web Mercator. */
  covermap.toLonLat = function (frame, x, y) {
    if (frame.crs !== "EPSG:3857") return null;
    const [east, north] = covermap.toCrs(frame, x, y);
    return [(east / EARTH_M) * (180 / Math.PI), (2 * Math.atan(Math.exp(north / EARTH_M)) - Math.PI / 2) * (180 / Math.PI)];
  };

  /** Length of a frame pixel on the ground (in the middle of the frame), in the frame's unit. */
  covermap.pixelSize = (frame) => frame.metres_per_px || frame.resolution;

  /** The same at row y: Web Mercator stretches towards the poles. */
  covermap.pixelLength = function (frame, y) {
    if (frame.crs !== "EPSG:3857") return covermap.pixelSize(frame);
    return frame.resolution / Math.cosh(covermap.toCrs(frame, 0, y)[1] / EARTH_M);
  };

  /** Hectares of a frame pixel at row y; null where the frame has no one area. Web Mercator is undone on the ellipsoid. */
  covermap.pixelHectares = function (frame, y) {
    if (frame.crs !== "EPSG:3857") return frame.hectares_per_px;
    const cos = 1 / Math.cosh(covermap.toCrs(frame, 0, y)[1] / EARTH_M);
    const bent = 1 - WGS84_E2 * (1 - cos * cos);
    return (Math.pow(frame.resolution * cos, 2) * (1 - WGS84_E2)) / (bent * bent) / 10000;
  };

  covermap.crsWords = function (frame, x, y) {
    const [east, north] = covermap.toCrs(frame, x, y);
    if (frame.unit === "px") return `column ${Math.floor(x)}, row ${Math.floor(y)}`;
    const digits = frame.resolution >= 1 ? 0 : 2;
    return `${east.toFixed(digits)} E, ${north.toFixed(digits)} N`;
  };

  covermap.lonLatWords = function ([lon, lat]) {
    const side = (value, plus, minus) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;
    return `${side(lat, "N", "S")}, ${side(lon, "E", "W")}`;
  };

  /** A scale bar of 1, 2 or 5 times a power of ten, at most 120 px long; and the pointer's coordinates. */
  covermap.startScale = function (map, frame) {
    const bar = covermap.$("scale-bar");
    const words = covermap.$("scale-words");
    const pointer = covermap.$("pointer");
    function draw() {
      const perPx = covermap.pixelLength(frame, map.getCenter().lat) * Math.pow(2, frame.native - map.getZoom());
      const most = perPx * 120;
      const power = Math.pow(10, Math.floor(Math.log10(most)));
      const length = power * [5, 2, 1].find((step) => step * power <= most);
      bar.style.width = `${length / perPx}px`;
      words.textContent = covermap.length(length, frame.unit);
    }
    map.on("zoomend moveend", draw);
    map.on("mousemove", (event) => {
      const { lat, lng } = event.latlng;
      const lonLat = covermap.toLonLat(frame, lng, lat);
      pointer.textContent = covermap.crsWords(frame, lng, lat) + (lonLat ? ` · ${covermap.lonLatWords(lonLat)}` : "");
    });
    map.on("mouseout", () => (pointer.textContent = frame.crs || ""));
    pointer.textContent = frame.crs || "";
    draw();
  };
})(window.covermap);
