// Files that change while they are looked at: the view is asked for again, and what was shown stays.
(function (covermap) {
  "use strict";

  let asked = null; // promise of the names of what has changed, while the server is asked

  async function renew() {
    const old = covermap.view;
    const view = await (await covermap.ask("view.json")).json();
    if (JSON.stringify(view.frame) !== JSON.stringify(old.frame)) throw new Error("the view has another extent by now; load the page again");
    const isOther = (layer) => layer.kind !== "points" && (covermap.layer(layer.id) || {}).version !== layer.version;
    const changed = view.layers.filter(isOther).map((layer) => layer.name);
    const gone = old.layers.filter((layer) => !view.layers.some((one) => one.id === layer.id)).map((layer) => layer.name);
    if (!changed.length && !gone.length) return [];
    const layers = view.layers.map((layer) => (layer.kind === "points" ? covermap.renewSample(covermap.layer(layer.id), layer) : layer));
    covermap.keepThrough(() => {
      covermap.view = { ...view, layers };
      covermap.forgetTiles();
    });
    covermap.tell("view", covermap.view);
    const has = (names) => `${names.join(", ")} ${names.length === 1 ? "has" : "have"}`;
    const words = [changed.length ? `${has(changed)} changed: shown anew.` : "", gone.length ? `${has(gone)} gone; see the notes.` : ""];
    covermap.say(words.join(" ").trim());
    return [...changed, ...gone];
  }

  const places = (view) => JSON.stringify([view.title, view.frame, view.layers.filter((layer) => layer.kind === "points")
    .map((layer) => [layer.id, layer.name, layer.points.map(({ id, x, y }) => [id, x, y])])]);

  /** The token of a server that was started anew; an Error where it does not serve these very samples. */
  async function renewToken() {
    const view = await (await covermap.ask("view.json")).json();
    if (places(view) !== places(covermap.view)) throw new Error("something else is served here by now: start `covermap view` as before, then try again");
    covermap.view.token = view.token;
  }

  /** Ask for something to be written, once more with the token of by now where the server was started anew. */
  covermap.post = async function (url, { headers, ...options } = {}) {
    const ask = () => covermap.ask(url, { method: "POST", headers: { ...headers, "X-Covermap-Token": covermap.view.token || "" }, ...options });
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 403) throw error;
      await renewToken();
      return ask();
    }
  };

  /** Ask what there is by now, and show it; promise of the names of the layers that have changed. */
  covermap.renew = function () {
    asked = asked || renew().finally(() => (asked = null));
    return asked;
  };

  /** Is a layer that was got from the view still the one that is shown? */
  covermap.isCurrent = (layer) => (covermap.layer(layer.id) || {}).version === layer.version;

  /** Show anew what has another version than here; promise of whether anything had. versions: of /point, by layer id, or nothing. */
  covermap.compareVersions = async function (versions) {
    const isOther = ([id, version]) => {
      const layer = covermap.layer(id);
      return !layer || (layer.kind !== "points" && layer.version !== version);
    };
    return Object.entries(versions || {}).some(isOther) && (await covermap.renew()).length > 0;
  };
})(window.covermap);
