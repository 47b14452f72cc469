//! The pages of the dashboard and the assets they load, as text. A page holds names and the path of its data. The numbers
//! are in the data scripts, so a new commit does not change the pages.

use std::fmt::Write;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::page_data::{Page, Site, Summary};
use crate::escape;

/// Plotly's script, gzipped by `build.rs`.
const PLOTLY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plotly.min.js.gz"));
const STYLE: &str = include_str!("site/site.css");
/// In the order of their dependencies.
const SCRIPTS: [&str; 5] = [
    include_str!("site/base.js"),
    include_str!("site/chart.js"),
    include_str!("site/overview.js"),
    include_str!("site/page.js"),
    include_str!("site/compare.js"),
];

/// The site may load its own scripts and styles only. `file:` is listed because a page opened from a file has no origin
/// for `'self'` to match. `'unsafe-inline'` is for Plotly, which sets styles on the elements it draws.
const POLICY: &str = "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'";

/// A file below `assets/`.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// A stem, 12 hexadecimal digits of the content's SHA-256, an extension.
    pub name: &'static str,
    pub bytes: &'static [u8],
}

struct Assets {
    style: (String, String),
    script: (String, String),
    plotly: (String, String),
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: hashed("site", "css", STYLE.to_owned()),
    script: hashed("site", "js", SCRIPTS.concat()),
    plotly: hashed("plotly", "min.js", plotly()),
});

fn hashed(stem: &str, extension: &str, content: String) -> (String, String) {
    let mut name = format!("{stem}-");
    for byte in &Sha256::digest(content.as_bytes())[..6] {
        let _ = write!(name, "{byte:02x}");
    }
    (format!("{name}.{extension}"), content)
}

#[expect(clippy::expect_used, reason = "the input is a constant, and a test unpacks it")]
fn plotly() -> String {
    let mut script = String::new();
    GzDecoder::new(PLOTLY).read_to_string(&mut script).expect("the script is gzipped UTF-8");
    script
}

/// The files below `assets/`. Any other file there for which [`is_asset`] is true belongs to another version.
pub fn assets() -> Vec<Asset> {
    let all = [&ASSETS.style, &ASSETS.script, &ASSETS.plotly];
    all.map(|(name, content)| Asset { name, bytes: content.as_bytes() }).to_vec()
}

/// Whether `name` is the name of an asset of this or any other version.
pub fn is_asset(name: &str) -> bool {
    let hash = |rest: &str| {
        let (hash, extension) = rest.split_once('.')?;
        let digits = hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| ["css", "js", "min.js"].contains(&extension))
    };
    name.split_once('-').is_some_and(|(stem, rest)| ["site", "plotly"].contains(&stem) && hash(rest) == Some(true))
}

/// The parts of a page that differ between pages.
struct Frame<'a> {
    view: &'a str,
    title: &'a str,
    heading: &'a str,
    repository: &'a str,
    /// Empty if the page does not show it.
    branch: &'a str,
    /// Id of the page whose data is loaded. `None` loads the index.
    page: Option<&'a str>,
    /// HTML of the main part.
    body: &'static str,
    /// HTML shown if scripts are off.
    without_scripts: String,
}

/// `index.html`.
pub fn index(site: &Site) -> String {
    frame(&Frame {
        view: "overview",
        title: "vLLM performance",
        heading: "vLLM performance",
        repository: &site.repository,
        branch: &site.branch,
        page: None,
        body: include_str!("site/overview.html"),
        without_scripts: tables(&site.pages),
    })
}

/// The page of a model on a device.
pub fn page(page: &Page) -> String {
    let model = escape::name(&page.model);
    frame(&Frame {
        view: "page",
        title: &format!("{model} on {}", escape::name(&page.device)),
        heading: &page.model,
        repository: &page.repository,
        branch: "",
        page: Some(&page.id),
        body: include_str!("site/page.html"),
        without_scripts: format!("<a href=\"data/{0}.csv\">CSV</a>", escape::html(&page.id)),
    })
}

/// `compare.html`.
pub fn compare(site: &Site) -> String {
    frame(&Frame {
        view: "compare",
        title: "Compare two commits",
        heading: "Compare two commits",
        repository: &site.repository,
        branch: &site.branch,
        page: None,
        body: include_str!("site/compare.html"),
        without_scripts: tables(&site.pages),
    })
}

fn tables(pages: &[Summary]) -> String {
    let line = |page: &Summary| {
        let [id, model, device, kind] =
            [&page.id, &page.model, &page.device, &page.device_type].map(|text| escape::html(escape::name(text)));
        format!("<li><a href=\"data/{id}.csv\">{model} on {device}, {kind}</a></li>\n")
    };
    format!("the numbers are in these tables:<ul>\n{}</ul>", pages.iter().map(line).collect::<String>())
}

fn frame(frame: &Frame) -> String {
    let Frame { view, body, without_scripts, .. } = frame;
    let title = escape::html(frame.title);
    let heading = escape::html(escape::name(frame.heading));
    let whole = escape::html(escape::clean(frame.heading, usize::MAX));
    let whole = if whole == heading { String::new() } else { format!(" title=\"{whole}\"") };
    let data = frame.page.unwrap_or("index");
    let tab = |file: &str, name: &str, here: bool| {
        let current = if here { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"{file}\"{current}>{name}</a>")
    };
    let nav = [tab("index.html", "Overview", *view == "overview"), tab("compare.html", "Compare", *view == "compare")];
    let place = [frame.repository, frame.branch].map(|text| escape::html(escape::name(text)));
    let place = place.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" · ");
    let (style, script, plotly) = (&ASSETS.style.0, &ASSETS.script.0, &ASSETS.plotly.0);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"assets/{style}\">\n\
         <script src=\"assets/{script}\"></script>\n<script defer src=\"data/{data}.js\"></script>\n</head>\n\
         <body data-view=\"{view}\" data-page=\"{data}\" data-plotly=\"assets/{plotly}\">\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
         <header class=\"bar\"><a class=\"home\" href=\"index.html\">vLLM performance</a>\
         <nav aria-label=\"Site\">{}</nav><span class=\"where\">{place}</span>\
         <button type=\"button\" id=\"theme\" hidden></button></header>\n\
         <main id=\"main\" tabindex=\"-1\">\n<h1{whole}>{heading}</h1>\n\
         <noscript><p class=\"notice\">The charts need JavaScript; {without_scripts}</p></noscript>\n\
         {body}<p id=\"spoken\" class=\"unseen\" aria-live=\"polite\"></p>\n</main>\n\
         <footer>Written by vllm-perf. Dates are those of the commits, in UTC.</footer>\n</body>\n</html>\n",
        nav.concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::page_data::LastCommit;

    fn site(model: &str) -> Site {
        let last = LastCommit { sha: "a".repeat(40), date: "2026-08-03T14:05:00Z".into() };
        let page = Summary {
            id: "m-cpu-0".into(),
            file: "m-cpu-0.html".into(),
            model: model.into(),
            device: "cpu".into(),
            device_type: "AMD EPYC".into(),
            series: 1,
            commits: 2,
            last,
        };
        Site { repository: "vllm-project/vllm".into(), branch: "main".into(), pages: vec![page], ..Site::default() }
    }

    #[test]
    fn a_hostile_name_is_escaped_in_every_page_and_a_long_one_is_cut_with_a_title() {
        let hostile = format!("</title><script>alert(1)</script>\" onload='x'{}", "x".repeat(10_000));
        let page = Page {
            id: "m-cpu-0".into(),
            model: hostile.clone(),
            device: "<b>".into(),
            device_type: "\"".into(),
            repository: "a/b<i>".into(),
            commits: vec![],
            series: vec![],
        };
        let site = site(&hostile);
        for html in [super::index(&site), super::compare(&site), super::page(&page)] {
            assert_eq!(html.matches("<script").count(), 2, "the site's and the data's: {html}");
            assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("onload='"), "{html}");
        }
        let html = super::page(&page);
        let heading = html.lines().find(|line| line.starts_with("<h1")).unwrap();
        assert!(heading.contains("title=\"&lt;/title&gt;&lt;script&gt;"), "{heading}");
        assert!(heading.split_once('>').unwrap().1.chars().count() < 300, "{heading}");
    }

    #[test]
    fn a_page_loads_its_data_and_the_assets_and_nothing_else() {
        let html = super::index(&site("m"));
        let names: Vec<&str> = assets().iter().map(|asset| asset.name).collect();
        let loaded: Vec<&str> =
            html.split("assets/").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
        assert_eq!(loaded, names);
        assert!(html.contains("src=\"data/index.js\"") && !html.contains("//"), "{html}");
    }

    #[test]
    fn plotly_is_one_whole_script() {
        let script = plotly();
        assert!(script[..100].contains("plotly.js v"), "{}", &script[..100]);
        assert!(script.len() > 3_000_000 && !script.contains("</script>") && !script.contains("MathJax.js"));
    }

    #[test]
    fn an_asset_of_any_version_is_recognised_by_its_name_and_no_other_file_is() {
        assert!(assets().iter().all(|asset| is_asset(asset.name)));
        assert!(is_asset("site-0123456789ab.css") && is_asset("plotly-0123456789ab.min.js"));
        for other in
            ["site.css", "site-notes.css", "logo-0123456789ab.js", "site-0123456789ab.css.bak", "plotly-3.0.1.min.js"]
        {
            assert!(!is_asset(other), "{other}");
        }
    }
}
