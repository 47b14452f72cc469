// The page of a model on a device: charts over commits, filters, the changes, and tables of all values.
"use strict";

const WINDOWS = [["", "all commits"], ["30", "last 30"], ["60", "last 60"], ["120", "last 120"]];

views.page = async () => {
  const page = await vllmPerf.when("page " + document.body.dataset.page);
  page.series.sort((a, b) => byMetric(a.metric, b.metric));
  const names = [...new Set(page.series.flatMap((series) => Object.keys(series.parameters)))];
  const varied = names.filter((name) => valuesOf(page.series, name).length > 1);
  const fixed = names.filter((name) => !varied.includes(name) && page.series.every((series) => series.parameters[name]));
  const metrics = [...new Set(page.series.map((series) => series.metric))];
  const last = page.commits[page.commits.length - 1];
  byId("facts").replaceChildren(...facts(page, fixed, last));
  byId("filters").append(
    choice("metric", "Metric", [["", "all"], ...metrics.map((name) => [name, metricName(name)])]),
    ...varied.map((name) => choice("p." + name, parameterName(name), [["", "all"], ...valuesOf(page.series, name).map((value) => [value, short(value, 40)])])),
    choice("split", "One chart per", [["", "metric"], ["series", "series"]]),
    choice("last", "Commits", WINDOWS),
    element("div", {class: "checks"}, check("log", "Log scale"), check("levels", "Levels and changes", true)),
  );
  for (const name of names.filter((name) => !varied.includes(name))) readFixed(page, name);
  const board = new Board(page, names);
  addEventListener("hashchange", () => board.render());
  addEventListener("theme", () => board.refresh());
  board.render();
  performance.mark("usable");
};

/* The distinct values of a parameter, in order. */
const valuesOf = (all, name) => [...new Set(all.map((series) => series.parameters[name] || ""))].filter(Boolean).sort(byValue);

/* Reads a parameter with one value from the address: a link from when it had several may name another. */
function readFixed(page, name) {
  const [only] = valuesOf(page.series, name);
  const unknown = (value) => [parameterName(name) + ": ", quoted(value), " was not measured: every series is shown instead."];
  keys.set("p." + name, {initial: "", meaning: (value) => (value === only ? value : undefined), unknown});
}

function facts(page, fixed, last) {
  const parts = [element("span", {}, short(page.device, 40) + " · " + short(page.type, 120))];
  if (fixed.length && page.series.length) parts.push(element("span", {}, parameters(page.series[0], fixed)));
  if (last) parts.push(element("span", {}, page.commits.length + " commits, latest ", link(last.url, element("code", {}, sha(last.sha))), " from " + moment(last.date)));
  parts.push(element("a", {href: "compare.html#page=" + page.id}, "Compare two commits"), element("a", {href: "data/" + page.id + ".csv", download: page.id + ".csv"}, "CSV"));
  return parts.map((part) => element("li", {}, part));
}

/* The charts for the current state. */
class Board {
  constructor(page, names) {
    Object.assign(this, {page, names, charts: [], shape: null});
    this.readKeys();
    this.watcher = new IntersectionObserver((seen) => {
      for (const {target, isIntersecting} of seen) if (isIntersecting) target.chart.draw();
    }, {rootMargin: "300px"});
  }

  /* Reads the keys of the address that have no control: one series, and a range of commits. */
  readKeys() {
    const {page} = this;
    keys.set("series", {
      initial: "", meaning: (value) => page.series.find((series) => series.id === value)?.id,
      unknown: (value) => ["This page has no series ", quoted(value), ": every series is shown instead."],
    });
    for (const [key, words, end] of [["from", "begins", "low"], ["to", "ends", "high"]]) {
      const unknown = (value) => [...noCommit(page, value), "; the range " + words + " at ", quoted(sha(page.commits[this.view()[end]].sha)), " instead."];
      keys.set(key, {initial: "", meaning: (value) => commitOf(page, value), unknown});
    }
  }

  /* The commits in view: the range of the address, or the last ones. */
  view() {
    const end = this.page.commits.length - 1;
    const place = (key, otherwise) => (chosen(key) ? this.page.commits.findIndex((commit) => commit.sha === chosen(key)) : otherwise);
    const count = parseInt(chosen("last"), 10);
    const places = [place("from", count > 1 ? Math.max(0, end - count + 1) : 0), place("to", end)];
    return {low: Math.min(...places), high: Math.max(...places), log: chosen("log"), levels: chosen("levels"), zoomed: Boolean(chosen("from") || chosen("to"))};
  }

  series() {
    return this.page.series.filter((series) =>
      (!chosen("series") || series.id === chosen("series"))
      && (!chosen("metric") || series.metric === chosen("metric"))
      && this.names.every((name) => !chosen("p." + name) || series.parameters[name] === chosen("p." + name)));
  }

  render() {
    const series = this.series();
    const split = chosen("split") === "series";
    const shape = split + series.map((one) => one.id).join();
    const view = this.view();
    showUnknown();
    this.zoomNotice(view);
    byId("changes").replaceChildren(...changesRows(this.page, series, view));
    if (shape === this.shape) return void this.charts.forEach((chart) => chart.show(view));
    this.shape = shape;
    this.watcher.disconnect();
    for (const chart of this.charts) if (chart.box.classList.contains("drawn")) Plotly.purge(chart.plot);
    this.charts = [];
    const groups = grouped(series, split ? 1 : LINES);
    byId("charts").replaceChildren(...groups.map((group, at) => this.figure(group, at, view)));
    byId("shown").textContent = series.length + " of " + this.page.series.length + " series in " + groups.length + (groups.length === 1 ? " chart" : " charts");
    if (!groups.length) byId("charts").append(element("p", {class: "empty"}, "No series matches these filters."));
    for (const chart of this.charts) this.watcher.observe(chart.box);
  }

  refresh() {
    this.charts.forEach((chart) => chart.show(chart.view));
  }

  zoomNotice(view) {
    const only = chosen("series");
    const reset = (key, words, changes) => {
      const button = element("button", {type: "button", id: key}, words);
      button.addEventListener("click", () => address.write(changes));
      return button;
    };
    const ends = [view.low, view.high].map((at) => this.page.commits[at]);
    byId("limits").replaceChildren(...[
      view.zoomed && ends[0] ? element("span", {}, "Commits ", element("code", {}, sha(ends[0].sha)), " to ", element("code", {}, sha(ends[1].sha)), " ", reset("reset-zoom", "Show all commits", {from: null, to: null})) : "",
      only ? element("span", {}, "One series ", reset("reset-series", "Show every series", {series: null})) : "",
    ].filter(Boolean));
  }

  figure(group, at, view) {
    const title = metricName(group.metric);
    const label = title + (group.common ? ", " + group.common : "") + ", over " + this.page.commits.length + " commits. The left and right arrow keys move between commits, Enter opens one. The values are in the table below.";
    const box = element("div", {class: "chart", tabindex: "0", role: "group", "aria-roledescription": "chart", "aria-label": label});
    const chart = new Chart(box, this.page, group, view);
    box.chart = chart;
    this.charts.push(chart);
    const numbers = element("details", {}, element("summary", {}, "Values"));
    numbers.addEventListener("toggle", () => {
      if (numbers.open && numbers.children.length === 1) numbers.append(numbersTable(this.page, group, title));
    });
    return element("section", {class: "card", "aria-labelledby": "chart-" + at},
      element("h3", {id: "chart-" + at, title: short(group.metric, 200)}, title, element("small", {}, " " + short(group.unit, 20) + " · " + directionWords(group.direction))),
      group.common ? element("p", {class: "common"}, group.common) : "",
      box, legend(this.page, group, chart), numbers);
  }
}

/* Groups series by metric, at most `most` in a chart. `words` are the parameters that differ within a chart. */
function grouped(all, most) {
  const metrics = new Map();
  for (const series of all) metrics.set(series.metric, [...(metrics.get(series.metric) || []), series]);
  return [...metrics].flatMap(([metric, all]) => parted(all, most).map((series) => {
    const names = [...new Set(series.flatMap((one) => Object.keys(one.parameters)))];
    const differ = names.filter((name) => new Set(series.map((one) => one.parameters[name])).size > 1);
    const common = parameters(series[0], names.filter((name) => !differ.includes(name)));
    return {metric, series, common, unit: series[0].unit, direction: series[0].direction, words: series.map((one) => parameters(one, differ))};
  }));
}

/* Splits too many series by the parameter with the fewest values, so that similar series share a chart. */
function parted(all, most) {
  if (all.length <= most) return [all];
  const names = [...new Set(all.flatMap((series) => Object.keys(series.parameters)))];
  const counts = names.map((name) => [name, new Set(all.map((series) => series.parameters[name] || "")).size]).filter(([, count]) => count > 1);
  const [name] = counts.sort((a, b) => a[1] - b[1])[0] || [];
  if (name === undefined) return [all.slice(0, most), ...parted(all.slice(most), most)];
  const values = [...new Set(all.map((series) => series.parameters[name] || ""))].sort(byValue);
  return values.flatMap((value) => parted(all.filter((series) => (series.parameters[name] || "") === value), most));
}

/* The legend and text alternative of a chart: the last value and the last change of each series. */
function legend(page, group, chart) {
  const row = (series, at) => {
    const end = series.values.findLastIndex((value) => value !== null);
    const change = series.changes[series.changes.length - 1];
    const button = element("button", {type: "button", class: "key", "aria-pressed": "true"}, element("i", {class: "line-" + (at + 1), "aria-hidden": "true"}, GLYPHS[at]), " " + (group.words[at] || "all"));
    button.addEventListener("click", () => button.setAttribute("aria-pressed", String(chart.toggle(at))));
    return [
      group.series.length > 1 ? button : element("span", {class: "key"}, element("i", {class: "line-1", "aria-hidden": "true"}, GLYPHS[0])),
      end < 0 ? "none" : withUnit(series.values[end], series.unit),
      change ? element("span", {}, changed(change.after / change.before - 1, series.direction), " ", element("span", {class: "quiet"}, "at " + sha(page.commits[change.at].sha) + " "), stateMark(change.state)) : element("span", {class: "quiet"}, "no change"),
    ];
  };
  return table(metricName(group.metric) + ": last value and last change of each series", ["Series", "#Last", "Last change"], group.series.map(row), {class: "legend"});
}

function numbersTable(page, group, title) {
  const rows = page.commits.map((commit, at) => [
    link(commit.url, element("code", {}, sha(commit.sha))), moment(commit.date), ...group.series.map((series) => number(series.values[at])),
  ]).reverse().filter((cells) => cells.slice(2).some((cell) => cell !== "none"));
  const heads = ["Commit", "Date (UTC)", ...group.words.map((words) => "#" + (words || "Value") + (group.unit ? " (" + short(group.unit, 20) + ")" : ""))];
  return table(title + ", all commits, newest first", heads, rows, {class: "numbers"});
}

const CHANGES = 12;

/* The changes of the displayed series, newest first. */
function changesRows(page, shown, view) {
  const all = shown.flatMap((series) => series.changes.filter((change) => change.at >= view.low && change.at <= view.high).map((change) => ({series, change})))
    .sort((a, b) => b.change.at - a.change.at || a.change.p - b.change.p);
  if (!all.length) return [element("p", {class: "empty"}, "No changes in these commits.")];
  const row = ({series, change}) => {
    const commit = page.commits[change.at];
    return [
      element("span", {}, metricName(series.metric), element("small", {}, parameters(series))),
      changed(change.after / change.before - 1, series.direction), withUnit(change.before, series.unit), withUnit(change.after, series.unit),
      element("span", {class: "once"}, link(commit.url, element("code", {}, sha(commit.sha))), element("small", {}, moment(commit.date))), stateMark(change.state),
    ];
  };
  const rows = all.slice(0, CHANGES).map(row);
  const note = all.length > CHANGES ? [element("p", {class: "quiet"}, "The newest " + CHANGES + " of " + all.length + " changes; the others are marked in the charts.")] : [];
  return [table("Changes of the displayed series, newest first", ["Metric", "#Change", "#Before", "#After", "Since", "State"], rows, {id: "changes-table"}), ...note];
}
