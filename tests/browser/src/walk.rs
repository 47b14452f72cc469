//! The walk through the site, one step for each feature. Times are printed, but not checked.

mod charts;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::browser::Window;
use crate::store;

const DRAWN: &str = "[...document.querySelectorAll('.chart')].filter(box => box.classList.contains('drawn')).length";

type Step<'a> = fn(&Walk<'a>) -> Result<()>;

struct Walk<'a> {
    window: Window,
    /// `file:///.../`.
    root: String,
    site: &'a Path,
    screenshots: &'a Path,
}

/// Runs all steps.
pub fn walk(chromium: &Path, site: &Path, screenshots: &Path) -> Result<()> {
    fs::create_dir_all(screenshots).context("cannot make the folder of the screenshots")?;
    let site = &site.canonicalize().with_context(|| format!("{} does not exist", site.display()))?;
    let walk = Walk { window: Window::open(chromium)?, root: format!("file://{}/", site.display()), site, screenshots };
    let steps: [(&str, Step<'_>); 11] = [
        ("the overview lists changes, regressions first, and filters them", Walk::overview),
        ("a change links to its series, and from there to all series", Walk::series),
        ("charts show commit, date and values, and open the commit", Walk::hover),
        ("zoom, log scale and filters are stored in the address and restored from it", Walk::permalink),
        ("a chart can be read with the keyboard alone", Walk::keyboard),
        ("tables, labels and headings are accessible to screen readers", Walk::structure),
        ("two commits can be compared, largest changes first", Walk::compare),
        ("an address that names what does not exist gets a notice, and what is shown instead", Walk::unknown),
        ("light and dark mode, by the system and by choice", Walk::dark),
        ("hostile names stay text", Walk::hostile),
        ("many charts, with times", Walk::many),
    ];
    for (name, step) in steps {
        step(&walk).with_context(|| format!("failed: {name}"))?;
        println!("ok: {name}");
    }
    let complaints = walk.window.complaints();
    ensure!(complaints.is_empty(), "console errors or network requests: {complaints:#?}");
    println!("ok: no console errors and no network requests");
    Ok(())
}

impl Walk<'_> {
    fn open(&self, file: &str) -> Result<()> {
        self.window.go(&format!("{}{file}", self.root))
    }

    /// The file of the page of a model, by the link that the overview shows.
    fn file(&self, begins: &str) -> Result<String> {
        self.open("index.html")?;
        let links = "[...document.querySelectorAll('#pages-table tbody a')]";
        let found = format!(
            "{links}.filter(link => link.textContent.startsWith({begins:?})).map(link => link.getAttribute('href'))[0]"
        );
        let file = self.window.text(&found)?;
        ensure!(!file.is_empty(), "the overview has no page of {begins}");
        Ok(file)
    }

    fn model(&self) -> Result<String> {
        self.file(store::MODEL)
    }

    fn shot(&self, name: &str) -> Result<()> {
        self.window.screenshot(self.screenshots, name)
    }

    fn same(&self, expression: &str, wanted: &str) -> Result<()> {
        let found = self.window.text(expression)?;
        ensure!(found == wanted, "`{expression}` is {found:?}, not {wanted:?}");
        Ok(())
    }

    fn overview(&self) -> Result<()> {
        let window = &self.window;
        self.open("index.html#days=30")?;
        println!(
            "overview: usable after {:.0} ms",
            window.number("performance.getEntriesByName('usable')[0].startTime")?
        );
        ensure!(window.holds("!document.querySelector('script[src*=plotly]')")?, "the overview loads Plotly");
        let changes = window.value("[...document.querySelectorAll('#moved-table .change')].map(cell => parseFloat(cell.textContent.replace('\\u2212', '-').replace(/[^-0-9.]/g, '')))")?;
        let changes: Vec<f64> = serde_json::from_value(changes)?;
        ensure!(changes.len() >= 8, "the recent changes lack the increase of the P99 TTFT: {changes:?}");
        ensure!(changes[0] > 20.0 && changes.is_sorted_by(|a, b| a.abs() >= b.abs()), "not worst first: {changes:?}");
        ensure!(
            window.text("document.querySelector('#moved-table tbody tr').textContent")?.contains("worse"),
            "the largest regression is not marked as worse"
        );
        self.shot("overview")?;

        let all = window.number("document.querySelectorAll('#pages-table tbody tr').length")?;
        window.click("#choice-model")?;
        window.typed("mixtral")?;
        window.until("document.querySelectorAll('#pages-table tbody tr').length === 1")?;
        ensure!(
            all > 3.0 && window.holds("location.hash.includes('model=mixtral')")?,
            "the filter is not in the address"
        );
        self.same("document.querySelector('#moved .empty').textContent", "No changes in the last 30 days.")?;
        self.open("index.html#days=30")?;
        window.choose("choice-device", "cpu")?;
        window.until(
            "[...document.querySelectorAll('#pages-table tbody tr')].every(row => row.cells[1].textContent === 'cpu')",
        )?;
        window.value("history.back()")?;
        window.until(&format!("document.querySelectorAll('#pages-table tbody tr').length === {all} && document.getElementById('choice-device').value === ''"))?;
        window.choose("choice-show", "better")?;
        window.until("!document.querySelector('#moved-table .worse')")?;
        Ok(())
    }

    fn series(&self) -> Result<()> {
        let window = &self.window;
        self.open("index.html#days=30")?;
        window.click("#moved-table tbody a")?;
        window.until(&format!("document.body?.dataset.view === 'page' && {DRAWN} === 1"))?;
        self.same("document.querySelector('.card h3').firstChild.textContent", "P99 TTFT")?;
        window.click("#reset-series")?;
        window.until("document.querySelectorAll('.chart').length > 1")?;
        ensure!(!window.holds("location.hash.includes('series')")?, "the address still names one series");
        Ok(())
    }

    fn structure(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        for page in ["index.html#days=30", "compare.html", &file] {
            self.open(page)?;
            for (what, wrong) in [
                (
                    "controls without a name",
                    "[...document.querySelectorAll('input, select')].filter(it => !it.labels.length)",
                ),
                (
                    "tables without a caption",
                    "[...document.querySelectorAll('main table')].filter(it => !it.caption?.textContent)",
                ),
                ("heads without scope", "[...document.querySelectorAll('main th')].filter(it => !it.scope)"),
                (
                    "links and buttons without text",
                    "[...document.querySelectorAll('a, button')].filter(it => !it.textContent.trim())",
                ),
                (
                    "duplicated ids",
                    "[...document.querySelectorAll('[id]')].map(it => it.id).filter((id, at, all) => all.indexOf(id) !== at)",
                ),
                (
                    "charts without a name",
                    "[...document.querySelectorAll('.chart')].filter(it => !it.getAttribute('aria-label'))",
                ),
            ] {
                let count = window.number(&format!("{wrong}.length"))?;
                ensure!(count == 0.0, "{page}: {count} {what}");
            }
            ensure!(
                window
                    .holds("document.querySelectorAll('h1').length === 1 && document.documentElement.lang === 'en'")?,
                "{page}: not exactly one first-level heading"
            );
        }
        window.click("details summary")?;
        window.until(&format!("document.querySelectorAll('details[open] tbody tr').length === {}", store::COMMITS))?;
        let csv = window.text("document.querySelector('a[download]').getAttribute('href')")?;
        let table = fs::read_to_string(self.site.join(&csv)).with_context(|| format!("{csv} does not exist"))?;
        ensure!(
            table.lines().count() == store::COMMITS * store::SERIES + 1,
            "{csv} has {} lines",
            table.lines().count()
        );
        Ok(())
    }

    fn compare(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        let id = file.trim_end_matches(".html");
        let (base, head) = (store::sha(store::STEP - 1), store::sha(store::STEP));
        self.open("compare.html")?;
        window.choose("choice-page", id)?;
        window.until(&format!("document.querySelectorAll('#choice-base option').length === {}", store::COMMITS))?;
        self.same("document.getElementById('choice-base').value", &store::sha(store::COMMITS - 2))?;
        window.choose("choice-base", &base)?;
        window.choose("choice-head", &head)?;
        window.until("document.querySelector('#comparison-table tbody tr')?.textContent.includes('Median TTFT')")?;
        let changes = "[...document.querySelectorAll('#comparison-table .change')].map(cell => parseFloat(cell.textContent.replace('\\u2212', '-').replace(/[^-0-9.]/g, '')))";
        let found: Vec<f64> = serde_json::from_value(window.value(changes)?)?;
        ensure!(found.len() > 50 && found[..8].iter().all(|change| *change > 8.0), "the step is not first: {found:?}");
        ensure!(
            window.text("document.querySelector('#comparison-table tbody tr').textContent")?.contains("worse"),
            "a slower commit is not marked as worse"
        );
        let quiet = "[...document.querySelectorAll('#comparison-table .change.quiet')]";
        self.same(&format!("String({quiet}.length > 40)"), "true")?;
        self.same(&format!("String({quiet}.some(cell => /better|worse/.test(cell.textContent)))"), "false")?;
        self.shot("compare")?;
        let address = window.text("location.hash")?;
        window.reload()?;
        self.same("location.hash", &address)?;
        let again: Vec<f64> = serde_json::from_value(window.value(changes)?)?;
        ensure!(again == found, "the comparison differs after a reload: {again:?}");
        window.click("#swap")?;
        window.until("document.querySelector('#comparison-table tbody tr .change').textContent.includes('better')")?;
        window.choose("choice-least", "0.05")?;
        window.until("document.querySelectorAll('#comparison-table tbody tr').length === 8")?;
        Ok(())
    }

    fn unknown(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        let page = file.trim_end_matches(".html");
        let notices = "[...document.querySelectorAll('#unknown .notice')].map(notice => notice.textContent).join('\\n')";
        let last = &store::sha(store::COMMITS - 2)[..7];
        let (low, high) = (&store::sha(0)[..7], &store::sha(store::STEP)[..7]);
        let cases = [
            (
                format!("compare.html#page={page}&base=feedbeef&metric=speed"),
                format!(
                    "base: feedbeef was not measured on this model and device; {last} is shown instead.\n\
                     speed is not one of the choices of “Metric”: “all” is shown instead."
                ),
            ),
            (
                "index.html#days=9&device=abacus&levels=1".to_owned(),
                "9 is not one of the choices of “Changes in the last”: “7 days” is shown instead.\n\
                 abacus is not one of the choices of “Device”: “all” is shown instead.\n\
                 This page has no setting levels: it is ignored."
                    .to_owned(),
            ),
            (
                format!("{file}#series=gone&from=feedbeef&to={high}&log=maybe"),
                format!(
                    "This page has no series gone: every series is shown instead.\n\
                     feedbeef was not measured on this model and device; the range begins at {low} instead.\n\
                     maybe is neither 1 nor 0: “Log scale” is off."
                ),
            ),
        ];
        for (address, wanted) in cases {
            self.open(&address)?;
            self.same(notices, &wanted)?;
            window.click("#remove-unknown")?;
            window.until("!document.querySelector('#unknown .notice')")?;
        }
        self.same("location.hash", &format!("#to={high}"))?;
        self.open(&format!("compare.html#page={page}&base={}", &store::sha(store::STEP)[..12]))?;
        self.same("document.getElementById('choice-base').value", &store::sha(store::STEP))?;
        self.same(notices, "")
    }

    fn dark(&self) -> Result<()> {
        let window = &self.window;
        let file = self.model()?;
        let dark = "(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number); return r + g + b < 200; })()";
        window.prefer("light")?;
        self.open(&file)?;
        self.plot()?;
        ensure!(!window.holds(dark)?, "dark mode although the system is light");
        self.shot("page-light")?;
        window.prefer("dark")?;
        window.until(dark)?;
        let line = "document.querySelector('.chart .plot').data[0].line.color";
        window.until(&format!("{line} === 'rgb(86, 180, 233)'"))?;
        self.shot("page-dark")?;
        window.click("#theme")?;
        window.until(&format!("!{dark} && {line} === 'rgb(0, 114, 178)'"))?;
        window.prefer("light")?;
        window.click("#theme")?;
        window.until(dark)?;
        window.reload()?;
        ensure!(window.holds(dark)?, "the choice is not stored");
        for (file, name) in [("index.html#days=30", "overview-dark"), ("compare.html", "compare-dark")] {
            self.open(file)?;
            self.shot(name)?;
        }
        window.click("#theme")?;
        window.until(&format!("!{dark}"))?;
        window.size(390, 844)?;
        for (file, name) in [
            ("index.html#days=30", "overview-narrow"),
            (file.as_str(), "page-narrow"),
            ("compare.html", "compare-narrow"),
        ] {
            self.open(file)?;
            if name == "page-narrow" {
                self.plot()?;
            }
            let over = window.number("document.documentElement.scrollWidth - innerWidth")?;
            ensure!(over <= 0.0, "{file} is {over} pixels wider than a phone");
            window.value("void scrollTo(0, 0)")?;
            self.shot(name)?;
        }
        window.size(1440, 1000)
    }

    fn hostile(&self) -> Result<()> {
        let window = &self.window;
        let seen = store::HOSTILE.trim_end_matches('\u{202e}');
        let (hostile, long) = (self.file("<script>")?, self.file(store::LONG)?);
        ensure!(
            window.holds(&format!("document.getElementById('pages').textContent.includes({:?})", &seen[..40]))?,
            "the name is not shown as it is"
        );
        for (file, begins) in [(&hostile, "<script>window.harm=1</script>"), (&long, store::LONG)] {
            self.open(file)?;
            self.plot()?;
            ensure!(
                window.text("document.querySelector('h1').textContent")?.starts_with(begins),
                "the heading is not the name"
            );
            ensure!(
                window
                    .holds("document.querySelectorAll('main img, main script, main b:not(.sides b)').length === 0")?,
                "a name became an element"
            );
            self.open(&format!("compare.html#page={}", file.trim_end_matches(".html")))?;
            self.open(&format!(
                "{file}#series={}&metric=%3Cimg%20src=x%20onerror=window.harm=3%3E&from=../&log=%00",
                "x".repeat(3000)
            ))?;
            window.until("document.querySelectorAll('#unknown .notice').length === 4")?;
        }
        self.open("compare.html#page=../../../etc/passwd&base=%3Cscript%3E")?;
        ensure!(window.holds("window.harm === undefined")?, "a name was executed");
        self.open(&long)?;
        let [title, shown] =
            ["title", "textContent"].map(|part| window.number(&format!("document.querySelector('h1').{part}.length")));
        let (title, shown) = (title?, shown?);
        ensure!(title > 9_000.0 && shown < 200.0, "{shown} characters shown, {title} in the title");
        self.shot("long-name")?;
        self.open(&hostile)?;
        self.shot("hostile-name")
    }
}
