// The overview: changes of the last 7 and 30 days, regressions first, and all pages by model and device.
"use strict";

const SHOWN = 50;

views.overview = async () => {
  const site = await vllmPerf.when("index");
  const pages = new Map(site.pages.map((page) => [page.id, page]));
  const values = (key) => [...new Set(site.pages.map((page) => page[key]))].sort(byValue);
  const search = element("input", {type: "search", id: "choice-model", placeholder: "part of a name", autocomplete: "off", spellcheck: "false"});
  byId("filters").append(
    element("div", {class: "field"}, element("label", {for: "choice-model"}, "Model"), control(search, "model", {replace: true})),
    choice("device", "Device", [["", "all"], ...values("device").map((name) => [name, short(name, 40)])]),
    choice("type", "Device type", [["", "all"], ...values("type").map((name) => [name, short(name, 50)])]),
    choice("metric", "Metric", [["", "all"], ...[...site.metrics].sort(byMetric).map((name) => [name, metricName(name)])]),
    choice("days", "Changes in the last", [["7", "7 days"], ["30", "30 days"]], "7"),
    choice("show", "Show", [["", "all changes"], ["worse", "worse only"], ["better", "better only"]]),
  );
  let all = false;
  const render = () => {
    showUnknown();
    const fits = (page) => page
      && clean(page.model).toLowerCase().includes(chosen("model").trim().toLowerCase())
      && (!chosen("device") || page.device === chosen("device"))
      && (!chosen("type") || page.type === chosen("type"));
    const days = parseInt(chosen("days"), 10);
    const wanted = (move) => fits(pages.get(move.page))
      && (!chosen("metric") || move.metric === chosen("metric"))
      && (!chosen("show") || move.better === (chosen("show") === "better"));
    const moved = within(site.moved, days).filter(wanted);
    const later = days === 7 && !moved.length ? within(site.moved, 30).filter(wanted).length : 0;
    byId("moved").replaceChildren(...movedRows(moved, days, pages, all));
    const state = address.read();
    state.set("days", "30");
    if (later) byId("moved").firstChild.append(" ", element("a", {href: address.of(state)}, later + " in the last 30 days"));
    const more = byId("moved").querySelector("button");
    if (more) more.addEventListener("click", () => { all = true; render(); });
    byId("pages").replaceChildren(pageRows(site.pages.filter(fits), within(site.moved, 30)));
    const counts = [moved.filter((move) => !move.better).length, moved.filter((move) => move.better).length];
    byId("counts").replaceChildren(
      element("li", {class: "worse"}, element("strong", {}, String(counts[0])), " worse"),
      element("li", {class: "better"}, element("strong", {}, String(counts[1])), " better"),
      element("li", {}, element("strong", {}, String(site.pages.filter(fits).length)), site.pages.filter(fits).length === 1 ? " page" : " pages"),
    );
  };
  addEventListener("hashchange", () => { all = false; render(); });
  render();
  performance.mark("usable");
};

/* The changes of the last days without duplicates, regressions first, then by size. */
function within(moved, days) {
  const kept = new Map();
  for (const move of moved) if (move.days <= days) kept.set(move.page + " " + move.series + " " + move.at, move);
  return [...kept.values()].sort((a, b) => a.better - b.better || Math.abs(Math.log1p(b.relative)) - Math.abs(Math.log1p(a.relative)));
}

function movedRows(moved, days, pages, all) {
  if (!moved.length) return [element("p", {class: "empty"}, "No changes in the last " + days + " days.")];
  const row = (move) => {
    const page = pages.get(move.page);
    const target = page.file + "#series=" + encodeURIComponent(move.series);
    return [
      element("a", {href: target}, metricName(move.metric), element("small", {}, parameters(move))),
      changed(move.relative, move.direction),
      withUnit(move.before, move.unit), withUnit(move.after, move.unit),
      element("span", {}, named(page.model, 60), element("small", {}, short(page.device, 30) + " · " + short(page.type, 60))),
      element("span", {class: "once"}, element("code", {}, sha(move.at)), element("small", {}, moment(move.date))),
      stateMark(move.state),
    ];
  };
  const shown = all ? moved : moved.slice(0, SHOWN);
  const heads = ["Metric", "#Change", "#Before", "#After", "Model and device", "Since", "State"];
  const parts = [table("Changes in the last " + days + " days, regressions first", heads, shown.map(row), {id: "moved-table"})];
  if (shown.length < moved.length) parts.push(element("button", {type: "button", class: "more"}, "Show all " + moved.length));
  return parts;
}

function pageRows(pages, moved) {
  if (!pages.length) return element("p", {class: "empty"}, "No page matches these filters.");
  const count = (page, good) => moved.filter((move) => move.page === page.id && move.better === good).length;
  const tally = (page) => {
    const [bad, good] = [count(page, false), count(page, true)];
    const parts = [bad ? element("span", {class: "worse"}, bad + " worse") : "", good ? element("span", {class: "better"}, good + " better") : ""].filter(Boolean);
    return element("span", {class: "tally"}, parts.length ? parts : element("span", {class: "quiet"}, "no changes"));
  };
  const row = (page) => [
    element("a", {href: page.file}, named(page.model, 70)),
    short(page.device, 30), named(page.type, 60), tally(page), number(page.series).replace(/\.0+$/, ""), number(page.commits).replace(/\.0+$/, ""),
    element("span", {class: "once"}, element("code", {}, sha(page.last.sha)), element("small", {}, moment(page.last.date))),
  ];
  const sorted = [...pages].sort((a, b) => a.model.localeCompare(b.model, "en", {numeric: true}) || a.device.localeCompare(b.device));
  return table("All models and devices", ["Model", "Device", "Device type", "Changes in 30 days", "#Series", "#Commits", "Last commit"], sorted.map(row), {id: "pages-table"});
}
