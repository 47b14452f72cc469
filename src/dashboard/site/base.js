// Shared by all pages of the dashboard: data loading, the state in the address, texts and numbers.
// Text from data never becomes markup: elements are created by `element`, which only sets text.
"use strict";

/* Called by the data files, in any order. */
const vllmPerf = (() => {
  const arrived = new Map();
  const waiting = new Map();
  const settle = (name, value) => {
    arrived.set(name, value);
    for (const resolve of waiting.get(name) || []) resolve(value);
    waiting.delete(name);
  };
  return {
    index: (site) => settle("index", site),
    page: (page) => settle("page " + page.id, page),
    when: (name) =>
      arrived.has(name)
        ? Promise.resolve(arrived.get(name))
        : new Promise((resolve) => waiting.set(name, [...(waiting.get(name) || []), resolve])),
  };
})();

/* Loads a script of this site once. */
const scripts = new Map();
function script(source) {
  if (!scripts.has(source)) {
    scripts.set(source, new Promise((done, fail) => {
      const tag = document.createElement("script");
      tag.src = source;
      tag.onload = done;
      tag.onerror = () => fail(new Error("cannot load " + source));
      document.head.append(tag);
    }));
  }
  return scripts.get(source);
}

/* The data of a page. The id becomes part of a file name, so it is checked. */
function pageData(id) {
  if (!/^[a-z0-9-]+$/.test(id)) return Promise.reject(new Error("not a page id: " + short(id)));
  return script("data/" + id + ".js").then(() => vllmPerf.when("page " + id));
}

/* element("a", {href, class}, "text", child...): creates an element with attributes, text and children. */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const byId = (id) => document.getElementById(id);

/* Text from data without invisible and direction-changing characters, except for the joiner of emoji. */
const clean = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (letter) => (letter === "\u200d" ? letter : ""));

function short(text, cap = 80) {
  const letters = Array.from(clean(text).slice(0, 4 * cap));
  return letters.length > cap || clean(text).length > 4 * cap ? letters.slice(0, cap - 1).join("") + "…" : letters.join("");
}

/* A name from data, cut to a length, with the complete name as its title. */
function named(text, cap = 80, tag = "span") {
  const cut = short(text, cap);
  return element(tag, {class: "name", title: cut.endsWith("…") ? clean(text) : null}, cut);
}

/* A link for an http or https URL, plain text otherwise. */
function link(url, ...words) {
  return web(url) ? element("a", {href: url, rel: "noopener noreferrer", target: "_blank"}, ...words) : element("span", {}, ...words);
}

const web = (url) => /^https?:\/\//i.test(url || "");

const ACRONYMS = {ttft: "TTFT", tpot: "TPOT", itl: "ITL", e2el: "E2EL", p99: "P99", avg: "Mean", std: "Std"};

/* The order of metrics: throughput, then medians and 99th percentiles, then all others. */
const FIRST = ["output_throughput", "tokens_per_second", "requests_per_second", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "latency"];
const byMetric = (a, b) => (FIRST.indexOf(a) + 1 || 99) - (FIRST.indexOf(b) + 1 || 99) || a.localeCompare(b, "en");

/* `median_ttft_ms` becomes `Median TTFT`. */
function metricName(metric) {
  const words = short(metric, 60).replace(/_ms$/, "").split("_").map((word) => ACRONYMS[word] || word).join(" ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const PARAMETERS = {
  request_rate: ["Request rate", "rate"], max_concurrency: ["Concurrency", "concurrency"], tensor_parallel_size: ["Tensor parallel", "TP"],
  random_input_len: ["Input length", "in"], input_len: ["Input length", "in"], random_output_len: ["Output length", "out"],
  output_len: ["Output length", "out"], use_compile: ["Compiled", "compiled"],
};
const parameterName = (name) => (PARAMETERS[name] || [short(name.replaceAll("_", " "), 40)])[0];
const parameterWord = (name) => (PARAMETERS[name] || [0, short(name.replaceAll("_", " "), 30)])[1];

/* The parameters of a series as text, restricted to `names`. */
function parameters(series, names = Object.keys(series.parameters)) {
  return names.filter((name) => series.parameters[name] !== undefined && series.parameters[name] !== "")
    .map((name) => parameterWord(name) + " " + short(series.parameters[name], 40)).join(" · ");
}

/* Numbers before words, `inf` after all numbers. */
function byValue(a, b) {
  const [x, y] = [a, b].map((text) => (text === "inf" ? Infinity : parseFloat(text)));
  if (Number.isNaN(x) || Number.isNaN(y) || x === y) return String(a).localeCompare(String(b), "en", {numeric: true});
  return x - y;
}

function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : null;
  const style = digits === null ? {maximumSignificantDigits: 3} : {minimumFractionDigits: digits, maximumFractionDigits: digits};
  return value.toLocaleString("en-US", style);
}

const withUnit = (value, unit) => number(value) + (unit && Number.isFinite(value) ? "\u00a0" + short(unit, 12) : "");

/* 0.05 becomes `+5.0 %`, with a Unicode minus sign. */
function percent(relative) {
  if (!Number.isFinite(relative)) return "none";
  const size = Math.abs(relative * 100);
  const text = size.toLocaleString("en-US", {minimumFractionDigits: size >= 100 ? 0 : 1, maximumFractionDigits: size >= 100 ? 0 : 1});
  return (relative < 0 ? "\u2212" : "+") + text + "\u00a0%";
}

const better = (direction, relative) => (direction === "higher" ? relative > 0 : relative < 0);
const directionWords = (direction) => (direction === "higher" ? "higher is better" : "lower is better");

/* A change with sign, arrow and word, so that colour is not the only indication. */
function changed(relative, direction, words = true) {
  if (!Number.isFinite(relative)) return element("span", {class: "quiet"}, "none");
  if (relative === 0) return element("span", {class: "quiet"}, "0\u00a0%");
  const good = better(direction, relative);
  return element("span", {class: "change " + (good ? "better" : "worse")},
    (relative > 0 ? "▲" : "▼") + "\u2009" + percent(relative), words ? element("small", {}, good ? " better" : " worse") : "");
}

const stateMark = (state) =>
  element("span", {class: "state " + (state === "confirmed" ? "confirmed" : "provisional")}, state === "confirmed" ? "◆ confirmed" : "◇ provisional");

const sha = (text) => short(text, 400).slice(0, 7);

/* A date as `2026-08-03 14:05`, in UTC; a day as `2026-08-03`. */
const moment = (date) => short(date, 40).replace("T", " ").replace(/(\d\d:\d\d)(:\d\d(\.\d+)?)?(Z|\+00:00)?$/, "$1");
const day = (date) => short(date, 40).slice(0, 10);

/* A table with a caption for screen readers and scoped heads. Cells are text or elements; `#` marks a column of numbers. */
function table(caption, heads, rows, attributes) {
  const head = heads.map((words) => element("th", {scope: "col", class: words.startsWith("#") ? "number" : null}, words.replace(/^#/, "")));
  const body = rows.map((cells) => element("tr", {}, cells.map((cell, at) =>
    at === 0 ? element("th", {scope: "row"}, cell) : element("td", {class: heads[at].startsWith("#") ? "number" : null}, cell))));
  return element("div", {class: "wide", tabindex: "0", role: "region", "aria-label": caption},
    element("table", attributes, element("caption", {class: "unseen"}, caption), element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

/* The state of a page is in its address, so that links and the back button restore it. */
const address = {
  read: () => new URLSearchParams(location.hash.slice(1)),
  of(state) {
    const words = new URLSearchParams([...state].filter(([, value]) => value !== ""));
    return "#" + words.toString();
  },
  write(changes, replace = false) {
    const state = address.read();
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === "" || value === false) state.delete(key);
      else state.set(key, value === true ? "1" : String(value));
    }
    if (address.of(state) === (location.hash || "#")) return;
    if (replace) location.replace(address.of(state));
    else location.hash = address.of(state);
  },
};

/* The keys of the address that a page reads, each as {initial, meaning, unknown}: what is shown without the key, what a value
   selects (undefined if it names nothing that exists), and the notice for a value that names nothing. */
const keys = new Map();

/* What a key of the address selects; `initial` if it is absent or names nothing that exists. */
function chosen(key) {
  const {initial, meaning} = keys.get(key);
  const value = address.read().get(key);
  return value ? meaning(value) ?? initial : initial;
}

const quoted = (text) => element("code", {}, short(text));

/* The full hash of the one commit of a page that begins with `text`. */
function commitOf(page, text) {
  const found = page.commits.filter((commit) => commit.sha.startsWith(text.toLowerCase()));
  return found.length === 1 ? found[0].sha : undefined;
}

/* Why no commit of a page is meant by `text`. */
function noCommit(page, text) {
  const several = page.commits.some((commit) => commit.sha.startsWith(text.toLowerCase()));
  return [quoted(text), several ? " is the beginning of more than one commit" : " was not measured on this model and device"];
}

const UNKNOWN = 8;

/* Shows what the address names and this page does not have, and what is shown instead. */
function showUnknown() {
  const wrong = [...address.read()].filter(([key, value]) => value && (!keys.has(key) || keys.get(key).meaning(value) === undefined));
  const words = ([key, value]) => keys.get(key)?.unknown(value) ?? ["This page has no setting ", quoted(key), ": it is ignored."];
  if (!byId("unknown")) byId("main").prepend(element("div", {id: "unknown", role: "status"}));
  const remove = element("button", {type: "button", id: "remove-unknown"}, "Remove from the address");
  remove.addEventListener("click", () => address.write(Object.fromEntries(wrong.map(([key]) => [key, null]))));
  byId("unknown").replaceChildren(...wrong.slice(0, UNKNOWN).map((pair) => element("p", {class: "notice"}, words(pair))), wrong.length ? remove : "");
}

/* Connects a control to one key of the state. */
function control(made, key, {replace = false, initial = "", meaning = (value) => value, unknown} = {}) {
  const box = made.type === "checkbox";
  keys.set(key, {initial, meaning, unknown});
  made.addEventListener(replace ? "input" : "change", () => address.write({[key]: box ? made.checked !== initial && (initial ? "0" : "1") : made.value === initial ? "" : made.value}, replace));
  const follow = () => {
    if (box) made.checked = chosen(key);
    else if (made.value !== chosen(key)) made.value = chosen(key);
  };
  follow();
  addEventListener("hashchange", follow);
  return made;
}

/* A labelled selection of [value, text] options; `meaning` and `unknown` as in `keys`, by default for the options alone. */
function choice(key, label, options, initial = "", {meaning, unknown} = {}) {
  const select = element("select", {id: "choice-" + key}, options.map(([value, words]) => element("option", {value}, words)));
  const option = (value) => options.find((option) => option[0] === value);
  const facts = {
    initial,
    meaning: meaning || ((value) => option(value)?.[0]),
    unknown: unknown || ((value) => [quoted(value), " is not one of the choices of “" + label + "”: “" + option(initial)[1] + "” is shown instead."]),
  };
  return element("div", {class: "field"}, element("label", {for: "choice-" + key}, label), control(select, key, facts));
}

function check(key, label, initial = false, title = null) {
  const box = element("input", {type: "checkbox", id: "check-" + key});
  const meaning = (value) => (value === "1" ? true : value === "0" ? false : undefined);
  const unknown = (value) => [quoted(value), " is neither 1 nor 0: “" + label + "” is " + (initial ? "on." : "off.")];
  return element("label", {class: "check", for: "check-" + key, title}, control(box, key, {initial, meaning, unknown}), label);
}

/* Light, dark or system colours, stored in the browser if it allows storage for files. */
const theme = {
  key: "vllm-perf-theme",
  now: "system",
  set(name, keep) {
    theme.now = ["light", "dark"].includes(name) ? name : "system";
    if (theme.now === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.now;
    if (keep) try { localStorage.setItem(theme.key, theme.now); } catch { /* the choice is not stored */ }
    dispatchEvent(new Event("theme"));
  },
  start() {
    try { theme.set(localStorage.getItem(theme.key)); } catch { /* system colours */ }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
  },
  button(button) {
    const words = {system: ["◐", " System"], light: ["☀", " Light"], dark: ["☾", " Dark"]};
    const show = () => {
      const [sign, word] = words[theme.now];
      button.replaceChildren(sign, element("span", {class: "word"}, word));
      button.setAttribute("aria-label", "Colour theme: " + theme.now + ". Change theme");
    };
    button.addEventListener("click", () => theme.set({system: "light", light: "dark", dark: "system"}[theme.now], true));
    addEventListener("theme", show);
    show();
    button.hidden = false;
  },
};
theme.start();

/* A colour of the style sheet as the browser resolves it, for Plotly. */
function colour(name) {
  const probe = document.body.appendChild(element("i", {hidden: true}));
  probe.style.color = "var(--" + name + ")";
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const announce = (words) => { byId("spoken").textContent = words; };

const views = {};
document.addEventListener("DOMContentLoaded", () => {
  theme.button(byId("theme"));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  views[document.body.dataset.view]().catch((error) => {
    byId("main").prepend(element("p", {class: "notice", role: "alert"}, "This page cannot be displayed: " + short(error.message, 300)));
    console.error(error);
  });
});
