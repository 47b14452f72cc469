// One chart: series over commits, drawn by Plotly. Plotly only gets numbers, dates and colours, never text from data;
// the tooltip (commit, date, values) is an element of this site.
"use strict";

/* Series differ in their marks as well as in their colours, which are in the style sheet (after Okabe and Ito). */
const MARKS = ["circle", "square", "triangle-up", "diamond", "cross", "x"];
const GLYPHS = ["●", "■", "▲", "◆", "✚", "✖"];
const LINES = 6;
/* With more changes in view than this, sizes are only shown in the legend and the table. */
const WORDED = 3;

const coarse = matchMedia("(pointer: coarse)").matches;

class Chart {
  /* `box` gets the drawing; `group` is {metric, unit, direction, series}; `view` is {low, high, log, levels}. */
  constructor(box, page, group, view) {
    Object.assign(this, {box, page, group, view, drawn: false, at: null});
    this.hidden = new Set();
    this.plot = element("div", {class: "plot"});
    this.cursor = element("div", {class: "cursor", hidden: true});
    this.tip = element("div", {class: "tip", hidden: true});
    box.append(this.plot, this.cursor, this.tip);
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("blur", () => this.leave());
  }

  async draw() {
    if (this.drawn) return;
    this.drawn = true;
    await script(document.body.dataset.plotly);
    if (!this.box.isConnected) return;
    await Plotly.newPlot(this.plot, this.traces(), this.layout(), {displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false, showTips: false});
    this.plot.on("plotly_hover", (event) => this.point(event.points[0].pointNumber));
    this.plot.on("plotly_unhover", () => this.leave());
    this.plot.on("plotly_click", (event) => this.open(event.points[0].pointNumber));
    this.plot.on("plotly_doubleclick", () => address.write({from: null, to: null}));
    this.plot.on("plotly_relayout", (event) => {
      const [low, high] = [event["xaxis.range[0]"], event["xaxis.range[1]"]];
      if (low === undefined || this.turning) return;
      const ends = [Math.max(Math.ceil(low), 0), Math.min(Math.floor(high), this.page.commits.length - 1)];
      if (ends[1] - ends[0] < 1) this.show(this.view);
      else address.write({from: this.page.commits[ends[0]].sha.slice(0, 12), to: this.page.commits[ends[1]].sha.slice(0, 12)});
    });
    this.box.classList.add("drawn");
    performance.mark("drawn");
  }

  /* Redraws with another view: zoom, log scale, levels, colours. */
  async show(view) {
    this.view = view;
    if (!this.drawn || !this.box.classList.contains("drawn")) return;
    this.turning = true;
    await Plotly.react(this.plot, this.traces(), this.layout());
    this.turning = false;
    this.leave();
  }

  toggle(at) {
    if (this.hidden.has(at)) this.hidden.delete(at);
    else this.hidden.add(at);
    this.show(this.view);
    return !this.hidden.has(at);
  }

  traces() {
    const places = this.page.commits.map((_, at) => at);
    const crowded = this.view.high - this.view.low > 80;
    const traces = [];
    this.group.series.forEach((series, at) => {
      if (this.hidden.has(at)) return;
      const ink = colour("line-" + (at + 1));
      traces.push({
        x: places, y: series.values, type: "scatter", mode: "lines+markers", connectgaps: true, hoverinfo: "none",
        line: {color: ink, width: 1.5}, marker: {color: ink, size: crowded ? 6 : 5, symbol: MARKS[at], maxdisplayed: crowded ? 16 : 0},
      });
      if (this.view.levels) traces.push({...this.level(series), type: "scatter", mode: "lines", hoverinfo: "skip", line: {color: ink, width: 4, shape: "hv"}, opacity: 0.3});
    });
    for (const state of ["confirmed", "provisional"]) traces.push(this.changes(state));
    return traces;
  }

  /* The base line: the level before the first change, and the level after each. */
  level(series) {
    const known = series.values.filter((value) => value !== null).sort((a, b) => a - b);
    const first = series.changes.length ? series.changes[0].before : known.length ? known[Math.floor(known.length / 2)] : null;
    const starts = [[0, first], ...series.changes.map((change) => [change.at, change.after])];
    const ends = [...starts.slice(1).map(([at]) => at), this.page.commits.length];
    return {
      x: starts.flatMap(([at], index) => [at - (at ? 0.5 : 0), ends[index] - (index === ends.length - 1 ? 1 : 0.5)]),
      y: starts.flatMap(([, level]) => [level, level]),
    };
  }

  /* Change points: filled if confirmed, hollow and with a question mark if provisional. */
  changes(state) {
    const found = this.group.series.flatMap((series, at) => (this.hidden.has(at) ? [] : series.changes)
      .filter((change) => (change.state === "confirmed") === (state === "confirmed"))
      .map((change) => ({...change, relative: change.after / change.before - 1})));
    const ink = found.map((change) => colour(better(this.group.direction, change.relative) ? "better" : "worse"));
    const inView = found.filter((change) => change.at >= this.view.low && change.at <= this.view.high).length;
    const middle = (this.view.low + this.view.high) / 2;
    return {
      x: found.map((change) => change.at), y: found.map((change) => change.after), type: "scatter", mode: "markers+text", hoverinfo: "skip", cliponaxis: false,
      text: found.map((change) => inView > WORDED ? "" : percent(change.relative) + (state === "confirmed" ? "" : " ?")), textfont: {color: ink, size: 11},
      textposition: found.map((change) => (change.relative > 0 ? "top " : "bottom ") + (change.at > middle ? "left" : "right")),
      marker: {color: ink, size: 11, symbol: state === "confirmed" ? "diamond" : "diamond-open", line: {color: state === "confirmed" ? colour("panel") : ink, width: state === "confirmed" ? 1 : 2}},
    };
  }

  layout() {
    const {low, high, log, levels} = this.view;
    const ink = colour("quiet"), rule = colour("rule");
    const dates = this.page.commits.slice(low, high + 1).map((commit) => day(commit.date));
    const wanted = Math.max(2, Math.min(6, Math.floor(this.box.clientWidth / 110)));
    const step = Math.max(1, Math.ceil((high - low + 1) / wanted));
    const ticks = [];
    for (let at = low; at <= high; at += step) ticks.push(at);
    const shapes = this.group.series.flatMap((series, at) => (this.hidden.has(at) || !levels ? [] : series.changes)).map((change) => ({
      type: "line", x0: change.at, x1: change.at, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: {color: ink, width: 1, dash: change.state === "confirmed" ? "dash" : "dot"},
    }));
    const year = dates.length && dates[0].slice(0, 4) !== dates[dates.length - 1].slice(0, 4);
    const axis = {color: ink, gridcolor: rule, zeroline: false, automargin: true, fixedrange: true};
    return {
      height: 250, margin: {l: 46, r: 12, t: 22, b: 28}, paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false,
      font: {family: getComputedStyle(document.body).fontFamily, size: 11, color: ink}, hovermode: "x", hoverdistance: -1, dragmode: coarse ? false : "zoom", shapes,
      xaxis: {...axis, fixedrange: coarse, showgrid: false, showline: true, linecolor: rule, range: [low - 0.6, high + 0.6], tickvals: ticks, ticktext: ticks.map((at) => (year ? dates[at - low] : dates[at - low].slice(5)))},
      yaxis: {...axis, type: log ? "log" : "linear", range: this.range(log), nticks: 5, exponentformat: "none", separatethousands: true},
    };
  }

  /* The range of the values in view, with room for the labels of changes; null selects Plotly's default. */
  range(log) {
    const {low, high} = this.view;
    const values = this.group.series.flatMap((series, at) => (this.hidden.has(at) ? [] : series.values.slice(low, high + 1))).filter((value) => value !== null && (!log || value > 0));
    if (!values.length) return null;
    const scaled = values.map((value) => (log ? Math.log10(value) : value));
    const [least, most] = [scaled.reduce((a, b) => Math.min(a, b)), scaled.reduce((a, b) => Math.max(a, b))];
    const room = (most - least) * 0.14 || Math.abs(most) * 0.05 || 1;
    return [least - room, most + room];
  }

  /* Shows the values of a commit and returns them as text. */
  point(at) {
    const commit = this.page.commits[at];
    this.at = at;
    const shown = this.group.series.map((series, index) => [series, index]).filter(([, index]) => !this.hidden.has(index));
    const rows = shown.map(([series, index]) => element("tr", {},
      element("th", {scope: "row"}, element("i", {class: "line-" + (index + 1), "aria-hidden": "true"}, GLYPHS[index]), " ", this.group.words[index]),
      element("td", {class: "number"}, withUnit(series.values[at], series.unit)),
      element("td", {class: "number"}, changeAt(series, at))));
    this.tip.replaceChildren(
      element("p", {}, element("code", {}, sha(commit.sha)), " ", moment(commit.date)),
      element("table", {}, element("tbody", {}, rows)),
      web(commit.url) ? element("p", {class: "quiet"}, "Click to open the commit: " + short(commit.url.replace(/^https?:\/\//i, ""), 44)) : "",
    );
    const {xaxis} = this.plot._fullLayout;
    const x = this.plot.offsetLeft + xaxis._offset + xaxis.l2p(at);
    this.cursor.style.left = x + "px";
    this.cursor.hidden = this.tip.hidden = false;
    const width = this.tip.offsetWidth, room = this.box.clientWidth;
    this.tip.style.left = Math.max(0, Math.min(x + 12 + width > room ? x - 12 - width : x + 12, room - width)) + "px";
    const values = shown.map(([series, index]) => (this.group.words[index] ? this.group.words[index] + ": " : "") + withUnit(series.values[at], series.unit));
    return sha(commit.sha) + ", " + moment(commit.date) + ". " + values.join("; ");
  }

  leave() {
    this.cursor.hidden = this.tip.hidden = true;
    this.at = null;
  }

  open(at) {
    const {url} = this.page.commits[at];
    if (web(url)) window.open(url, "_blank", "noopener");
  }

  /* The arrow keys move between commits, Enter opens the current one. */
  key(event) {
    const {low, high} = this.view;
    const step = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10}[event.key];
    if (!this.box.classList.contains("drawn") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (step) announce(this.point(Math.max(low, Math.min(high, this.at === null ? (step < 0 ? high : low) : this.at + step))));
    else if (event.key === "Home") announce(this.point(low));
    else if (event.key === "End") announce(this.point(high));
    else if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" && this.at !== null) this.open(this.at);
    else return;
    event.preventDefault();
  }
}

/* The change of a series at this commit, as text. */
function changeAt(series, at) {
  const change = series.changes.find((change) => change.at === at);
  return change ? element("span", {}, changed(change.after / change.before - 1, series.direction), " ", stateMark(change.state)) : "";
}
