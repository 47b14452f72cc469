// Compares two commits of a page: all series, the largest changes first. Each commit has one measurement, so this is not a
// verdict; each change is shown with the typical commit-to-commit change of its series.
"use strict";

views.compare = async () => {
  const site = await vllmPerf.when("index");
  const pages = [...site.pages].sort((a, b) => a.model.localeCompare(b.model, "en", {numeric: true}) || a.device.localeCompare(b.device));
  const out = byId("comparison");
  if (!pages.length) return void out.replaceChildren(element("p", {class: "empty"}, "The store has no records yet."));
  const words = (page) => [page.id, short(page.model, 60) + " · " + short(page.device, 20) + " · " + short(page.type, 40)];
  byId("filters").append(choice("page", "Model and device", pages.map(words), pages[0].id));
  const sides = element("div", {class: "fields"});
  byId("filters").append(sides);
  let shown = null;
  const render = async () => {
    const wanted = chosen("page");
    const page = await pageData(wanted);
    if (wanted !== chosen("page")) return;
    if (shown !== page.id) pick(sides, page);
    shown = page.id;
    showUnknown();
    const [base, head] = ends(page);
    out.replaceChildren(...comparison(page, base, head));
    performance.mark("usable");
  };
  addEventListener("hashchange", render);
  await render();
};

/* The places of the two commits of the address, by default those of the last two. */
const ends = (page) => ["base", "head"].map((key) => page.commits.findIndex((commit) => commit.sha === chosen(key)));

function pick(sides, page) {
  const options = page.commits.map((commit) => [commit.sha, sha(commit.sha) + "  " + moment(commit.date)]).reverse();
  const last = page.commits.length - 1;
  const side = (key, at) => {
    const initial = page.commits[Math.max(at, 0)].sha;
    const unknown = (value) => [key + ": ", ...noCommit(page, value), "; ", quoted(sha(initial)), " is shown instead."];
    return choice(key, key, options, initial, {meaning: (value) => commitOf(page, value), unknown});
  };
  const swap = element("button", {type: "button", id: "swap"}, "⇄ Swap");
  swap.addEventListener("click", () => {
    const [base, head] = ends(page);
    address.write({base: page.commits[head].sha, head: page.commits[base].sha});
  });
  const metrics = [...new Set(page.series.map((series) => series.metric))].sort(byMetric);
  sides.replaceChildren(
    side("base", last - 1), swap, side("head", last),
    choice("metric", "Metric", [["", "all"], ...metrics.map((name) => [name, metricName(name)])]),
    choice("least", "Changes of at least", [["", "any size"], ["0.02", "2 %"], ["0.05", "5 %"], ["0.1", "10 %"]]),
  );
}

/* The typical relative change of a series from one commit to the next: the median. */
function typicalChange(values) {
  const known = values.filter((value) => value > 0);
  const steps = known.slice(1).map((value, at) => Math.abs(Math.log(value / known[at]))).sort((a, b) => a - b);
  return steps.length < 5 ? null : Math.expm1(steps[Math.floor(steps.length / 2)]);
}

/* A change above so many typical changes is called better or worse. */
const CLEAR = 3;

function comparison(page, base, head) {
  const [a, b] = [page.commits[base], page.commits[head]];
  const side = (word, commit) => element("p", {}, element("b", {}, word + " "), link(commit.url, element("code", {}, sha(commit.sha))),
    element("span", {class: "quiet"}, " " + moment(commit.date)), commit.run ? element("span", {}, " · ", link(commit.run, "run")) : "");
  const rows = page.series
    .filter((series) => !chosen("metric") || series.metric === chosen("metric"))
    .map((series) => ({series, before: series.values[base], after: series.values[head]}))
    .map((row) => ({...row, relative: row.before > 0 && row.after !== null ? row.after / row.before - 1 : NaN}));
  const size = (row) => (Number.isNaN(row.relative) ? -1 : Math.abs(Math.log1p(row.relative)));
  const measured = rows.filter((row) => row.before !== null || row.after !== null);
  const least = parseFloat(chosen("least")) || 0;
  const kept = measured.filter((row) => !least || Math.abs(row.relative) >= least).sort((x, y) => size(y) - size(x));
  const none = rows.length - measured.length;
  const row = ({series, before, after, relative}) => {
    const step = typicalChange(series.values);
    // What may be noise has no colour and is called neither better nor worse.
    const isClear = step !== null && Math.abs(relative) > CLEAR * step;
    const change = isClear || !Number.isFinite(relative) ? changed(relative, series.direction) : element("span", {class: "change quiet"}, percent(relative));
    return [
      element("a", {href: page.id + ".html#series=" + encodeURIComponent(series.id)}, metricName(series.metric), element("small", {}, parameters(series))),
      withUnit(before, series.unit), withUnit(after, series.unit), change,
      step === null ? element("span", {class: "quiet"}, "unknown") : "±" + percent(step).slice(1),
      element("span", {class: "quiet"}, directionWords(series.direction)),
    ];
  };
  const heads = ["Metric", "#base", "#head", "#Change", "#Typical commit-to-commit change", "Direction"];
  return [
    element("div", {class: "sides"}, side("base", a), side("head", b)),
    element("p", {class: "notice"}, "This is not a verdict: each commit has one measurement. Changes up to " + CLEAR + " times the typical commit-to-commit change may be noise."),
    kept.length ? table("All series at both commits, largest changes first", heads, kept.map(row), {id: "comparison-table"})
      : element("p", {class: "empty"}, base === head ? "These are the same commit." : "No series has a change of that size."),
    none ? element("p", {class: "quiet"}, none + " of " + rows.length + " series were not measured at either commit.") : "",
  ].filter(Boolean);
}
