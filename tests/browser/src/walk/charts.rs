//! The steps for charts: hover, zoom, log scale, filters, keyboard, and many charts.

use anyhow::{Context, Result, ensure};

use super::{DRAWN, Walk};
use crate::store;

impl Walk<'_> {
    /// The middle of the first chart's plot, and a point on either side.
    pub(super) fn plot(&self) -> Result<[(f64, f64); 3]> {
        self.window.until(&format!("{DRAWN} > 0"))?;
        let [left, top, width, height] = self.window.rectangle(".chart .nsewdrag")?;
        let y = top + height / 2.0;
        Ok([(left + width * 0.5, y), (left + width * 0.3, y), (left + width * 0.7, y)])
    }

    pub(super) fn hover(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        self.open(&format!("{file}#metric=median_ttft_ms"))?;
        window.value("void (window.open = (url) => { window.opened = url; })")?;
        let [(x, y), ..] = self.plot()?;
        window.hover(x - 40.0, y)?;
        window.hover(x, y)?;
        window.until("!document.querySelector('.tip').hidden")?;
        let tip = window.text("document.querySelector('.tip').textContent")?;
        let commit = window.text("document.querySelector('.tip code').textContent")?;
        let known = (0..store::COMMITS)
            .find(|at| store::sha(*at).starts_with(&commit))
            .with_context(|| format!("no such commit: {tip}"))?;
        ensure!(known.abs_diff(store::COMMITS / 2) < 6, "the middle of the chart is commit {known}: {tip}");
        ensure!(
            tip.contains("2026-") && tip.contains("ms") && tip.contains("rate inf"),
            "the tooltip is incomplete: {tip}"
        );
        self.shot("hover")?;
        window.press(x, y)?;
        window.until("!!window.opened")?;
        let url = window.text("window.opened")?;
        ensure!(url == format!("https://github.com/vllm-project/vllm/commit/{}", store::sha(known)), "opens {url}");
        let marks = window.value("document.querySelector('.chart .plot').data.filter(trace => trace.mode === 'markers+text').map(trace => [trace.marker.symbol, trace.x])")?;
        let marks: Vec<(String, Vec<usize>)> = serde_json::from_value(marks)?;
        let (symbol, places) = &marks[0];
        ensure!(
            symbol == "diamond" && !places.is_empty() && places.iter().all(|at| at.abs_diff(store::STEP) <= 2),
            "confirmed changes: {marks:?}"
        );
        self.open(&format!("{file}#metric=p99_ttft_ms"))?;
        self.plot()?;
        let marks = window.value("document.querySelector('.chart .plot').data.filter(trace => trace.marker?.symbol === 'diamond-open').flatMap(trace => trace.x)")?;
        let marks: Vec<usize> = serde_json::from_value(marks)?;
        ensure!(
            !marks.is_empty() && marks.iter().all(|at| *at == store::COMMITS - store::FRESH),
            "provisional changes: {marks:?}"
        );
        ensure!(
            window.text("document.getElementById('changes').textContent")?.contains("provisional"),
            "the table does not mention it"
        );
        self.shot("provisional")
    }

    pub(super) fn permalink(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        self.open(&file)?;
        let [_, from, to] = self.plot()?;
        window.drag(from, to)?;
        window.until("/from=[0-9a-f]{12}&to=[0-9a-f]{12}/.test(location.hash)")?;
        let range = "(() => { const [low, high] = document.querySelector('.chart .plot')._fullLayout.xaxis.range; return high - low; })()";
        window.until(&format!("{range} < {} && {range} > {}", store::COMMITS / 2, store::COMMITS / 4))?;
        window.click("#check-log")?;
        window.until("document.querySelector('.chart .plot')._fullLayout.yaxis.type === 'log'")?;
        self.shot("zoom-log")?;
        window.choose("choice-metric", "median_tpot_ms")?;
        window.choose("choice-p.request_rate", "inf")?;
        let state = "[location.hash, document.querySelectorAll('.chart').length, document.getElementById('shown').textContent, document.getElementById('check-log').checked, \
                     document.getElementById('choice-metric').value, document.getElementById('choice-p.request_rate').value, document.getElementById('limits').textContent].join('|')";
        window.until("document.getElementById('shown').textContent.startsWith('2 of')")?;
        let before = window.text(state)?;
        window.reload()?;
        window.until(&format!("{DRAWN} === 1"))?;
        self.same(state, &before)?;
        window.until("document.querySelector('.chart .plot')._fullLayout.yaxis.type === 'log'")?;
        window.value("history.back()")?;
        window.until("document.getElementById('choice-p.request_rate').value === '' && document.getElementById('shown').textContent.startsWith('8 of')")?;
        window.click("#reset-zoom")?;
        window.until(&format!("{range} > {} && !location.hash.includes('from=')", store::COMMITS - 2))?;
        Ok(())
    }

    pub(super) fn keyboard(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        self.open(&format!("{file}#metric=median_ttft_ms"))?;
        self.plot()?;
        window.value("void (window.open = (url) => { window.opened = url; })")?;
        window.key("Tab")?;
        ensure!(window.holds("document.activeElement.className === 'skip'")?, "the first focus is not the skip link");
        window.key("Enter")?;
        window.until("document.activeElement.id === 'main' && location.hash === '#metric=median_ttft_ms'")?;
        let mut stops = 0;
        while !window.holds("document.activeElement.classList.contains('chart')")? {
            stops += 1;
            ensure!(stops < 40, "no chart can be reached with the tab key");
            window.key("Tab")?;
        }
        ensure!(window.holds("document.activeElement.matches(':focus-visible') && getComputedStyle(document.activeElement).outlineStyle !== 'none'")?, "the focus is not visible");
        for key in ["End", "ArrowLeft"] {
            window.key(key)?;
        }
        let commit = store::sha(store::COMMITS - 2);
        let spoken = window.text("document.getElementById('spoken').textContent")?;
        ensure!(spoken.starts_with(&commit[..7]) && spoken.contains("ms"), "spoken: {spoken}");
        self.shot("keyboard")?;
        window.key("Enter")?;
        self.same("window.opened || ''", &format!("https://github.com/vllm-project/vllm/commit/{commit}"))
    }

    pub(super) fn many(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        self.open(&format!("{file}#split=series"))?;
        let charts = window.number("document.querySelectorAll('.chart').length")?;
        ensure!(charts >= 50.0, "only {charts} charts");
        window.until("(() => { const seen = [...document.querySelectorAll('.chart')].filter(box => { const r = box.getBoundingClientRect(); return r.top < innerHeight && r.bottom > 0; }); return seen.length > 0 && seen.every(box => box.classList.contains('drawn')); })()")?;
        let [usable, drawn] = ["usable", "drawn"]
            .map(|mark| window.number(&format!("performance.getEntriesByName('{mark}')[0].startTime")));
        let count = window.number(DRAWN)?;
        let last = window.number("Math.max(...performance.getEntriesByName('drawn').map(mark => mark.startTime))")?;
        println!(
            "a page of {charts} charts of {} commits: usable after {:.0} ms, first chart {:.0} ms, the {count} in view {last:.0} ms",
            store::COMMITS,
            usable?,
            drawn?
        );
        ensure!(count < charts, "charts outside the viewport are drawn");
        window.value("void scrollTo(0, document.body.scrollHeight)")?;
        window.until("[...document.querySelectorAll('.chart')].at(-1).classList.contains('drawn')")?;
        Ok(())
    }
}
