// The page's one namespace, and the few things that all files use: elements, events, numbers in words.
window.covermap = window.covermap || {};

(function (covermap) {
  "use strict";

  const listeners = Object.create(null);

  /** Call `act(value)` each time `name` is told. */
  covermap.on = function (name, act) {
    (listeners[name] = listeners[name] || []).push(act);
  };

  covermap.tell = function (name, value) {
    for (const act of listeners[name] || []) act(value);
  };

  /** What an object itself holds under a name that somebody gave: a layer may be called "constructor". */
  covermap.own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

  covermap.$ = (id) => document.getElementById(id);

  /** An element; properties by name, `on…` as listeners, `aria-`, `data-` and `role` as attributes; text is never markup. */
  covermap.el = function (tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === null || value === undefined) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (/^(aria-|data-|role$|for$|scope$|list$)/.test(name)) node.setAttribute(name, value);
      else node[name] = value;
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  };

  /** Fill a part of the page anew; focus and scrolled lists in it are again as they were (by id). */
  covermap.render = function (node, ...children) {
    const focused = node.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...node.querySelectorAll("[id]")].filter((one) => one.scrollTop).map((one) => [one.id, one.scrollTop]);
    node.replaceChildren(...children.flat(Infinity).filter(Boolean));
    for (const [id, top] of scrolled) {
      const list = document.getElementById(id);
      if (list) list.scrollTop = top;
    }
    const again = focused && document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  };

  /** A labelled <select>; options are [value, words] or {group, options}. */
  covermap.choose = function (id, label, options, value, act) {
    const option = ([key, words]) => covermap.el("option", { value: key, textContent: words, selected: key === value });
    const made = options.map((o) =>
      o.group ? covermap.el("optgroup", { label: o.group }, o.options.map(option)) : option(o));
    const select = covermap.el("select", { id, onchange: () => act(select.value) }, made);
    return covermap.el("label", { className: "field", for: id }, covermap.el("span", {}, label), select);
  };

  covermap.tick = function (id, label, checked, act) {
    const box = covermap.el("input", { type: "checkbox", id, checked, onchange: () => act(box.checked) });
    return covermap.el("label", { className: "line", for: id }, box, label);
  };

  covermap.button = function (id, label, act, more) {
    return covermap.el("button", { type: "button", id, onclick: act, ...more }, label);
  };

  /** A square in a colour; the colour is set by the CSSOM, which the content security policy allows. */
  covermap.swatch = function (colour) {
    const node = covermap.el("span", { className: "swatch", "aria-hidden": "true" });
    if (colour) node.style.backgroundColor = colour;
    return node;
  };

  covermap.number = function (value, digits) {
    const digit = { minimumFractionDigits: digits || 0, maximumFractionDigits: digits || 0 };
    return value.toLocaleString("en", { ...digit, roundingMode: "halfEven" }); // as the command line rounds
  };

  /** Hectares with as many digits as are of use. */
  covermap.hectares = function (value) {
    const digits = value >= 100000 || value === 0 ? 0 : value >= 100 ? 1 : value >= 0.01 ? 2 : 4;
    return covermap.number(+value.toPrecision(12), digits); // 567.3499999999 is a sum of pixels: 567.35
  };

  /** A length in the frame's unit: "10 m", "1.5 km", "4 px". */
  covermap.length = function (value, unit) {
    if (unit === "m" && value >= 1000) return +(value / 1000).toPrecision(3) + " km";
    return +value.toPrecision(3) + " " + unit;
  };

  /** The rest of a burst of calls is left out: one call `wait` ms after the last. */
  covermap.later = function (act, wait) {
    let timer = 0;
    return function () {
      clearTimeout(timer);
      timer = setTimeout(act, wait);
    };
  };

  const forgetSoon = covermap.later(() => (covermap.$("news").textContent = ""), 6000);

  /** Words with a mark at their end. */
  covermap.sentence = (words) => (/[.?!]$/.test(words) ? words : `${words}.`);

  /** Say something to the eyes and to screen readers; errors stay until they are closed. */
  covermap.say = function (text, isError) {
    const box = covermap.$(isError ? "problem" : "news");
    covermap.$(isError ? "problem-text" : "news").textContent = text;
    if (isError) box.hidden = !text;
    else forgetSoon();
  };

  /** What the server answered, or an Error with its sentence, its status and all that it told. */
  covermap.ask = async function (url, options) {
    let answer;
    try {
      answer = await fetch(url, options);
    } catch {
      throw new Error("the server does not answer: start `covermap view` as before");
    }
    if (!answer.ok) {
      const found = await answer.json().catch(() => ({}));
      const error = new Error(found.error || `the server answered ${answer.status}`);
      throw Object.assign(error, { status: answer.status, told: found });
    }
    return answer;
  };
})(window.covermap);
