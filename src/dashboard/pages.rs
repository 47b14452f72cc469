//! The pages of the dashboard and what they load, as text. Pure. A page carries its names and where its data is; the
//! numbers come from the data scripts, so that a new commit changes no page.

use std::fmt::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::page_data::{Page, Site, Summary};
use crate::report::escape;

const STYLE: &str = include_str!("site/site.css");
/// In the order in which they build on each other.
const SCRIPTS: [&str; 5] = [
    include_str!("site/base.js"),
    include_str!("site/chart.js"),
    include_str!("site/overview.js"),
    include_str!("site/page.js"),
    include_str!("site/compare.js"),
];

/// What the site may load: its own scripts and styles. `file:` is named because a page that is opened from a file has no
/// origin that `'self'` could mean. Plotly sets styles on what it draws.
const POLICY: &str = "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'";

/// A file that every page loads.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// File name below `assets/`: a stem, twelve hexadecimal digits of its content, an extension.
    pub name: &'static str,
    /// Content.
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

/// Plotly's script, the first of those that its crate writes into a page; the second, for formulas, is not used.
fn plotly() -> String {
    let sources = plotly::Plot::offline_js_sources();
    let first = sources.split_once("</script>").map_or(sources.as_str(), |(first, _)| first);
    first.split_once('>').map_or(first, |(_, script)| script).to_owned()
}

/// The files below `assets/`. A file there that [`is_asset`] and is none of these is of a former version.
pub fn assets() -> Vec<Asset> {
    let all = [&ASSETS.style, &ASSETS.script, &ASSETS.plotly];
    all.map(|(name, content)| Asset { name, bytes: content.as_bytes() }).to_vec()
}

/// Whether a file below `assets/` has the name of one of ours, of this version or of another.
pub fn is_asset(name: &str) -> bool {
    let hash = |rest: &str| {
        let (hash, extension) = rest.split_once('.')?;
        let digits = hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| ["css", "js", "min.js"].contains(&extension))
    };
    name.split_once('-').is_some_and(|(stem, rest)| ["site", "plotly"].contains(&stem) && hash(rest) == Some(true))
}

/// What is common to the pages.
struct Frame<'a> {
    view: &'a str,
    title: &'a str,
    heading: &'a str,
    repository: &'a str,
    /// Empty where the page does not say.
    branch: &'a str,
    /// Id of the page whose data is loaded; the index without one.
    page: Option<&'a str>,
    /// Main part, without names.
    body: &'static str,
    /// What is shown without scripts, as HTML.
    otherwise: String,
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
        otherwise: tables(&site.pages),
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
        otherwise: format!("<a href=\"data/{0}.csv\">CSV</a>", escape::html(&page.id)),
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
        otherwise: tables(&site.pages),
    })
}

fn tables(pages: &[Summary]) -> String {
    let line = |page: &Summary| {
        let [id, model, device, kind] =
            [&page.id, &page.model, &page.device, &page.device_type].map(|text| escape::html(&escape::name(text)));
        format!("<li><a href=\"data/{id}.csv\">{model} on {device}, {kind}</a></li>\n")
    };
    format!("the numbers are in these tables:<ul>\n{}</ul>", pages.iter().map(line).collect::<String>())
}

fn frame(frame: &Frame) -> String {
    let Frame { view, body, otherwise, .. } = frame;
    let title = escape::html(frame.title);
    let heading = escape::html(&escape::name(frame.heading));
    let whole = escape::html(&escape::clean(frame.heading, usize::MAX));
    let whole = if whole == heading { String::new() } else { format!(" title=\"{whole}\"") };
    let data = frame.page.unwrap_or("index");
    let tab = |file: &str, name: &str, here: bool| {
        let current = if here { " aria-current=\"page\"" } else { "" };
        format!("<a href=\"{file}\"{current}>{name}</a>")
    };
    let nav = [tab("index.html", "Overview", *view == "overview"), tab("compare.html", "Compare", *view == "compare")];
    let place = [frame.repository, frame.branch].map(|text| escape::html(&escape::name(text)));
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
         <noscript><p class=\"notice\">The charts need JavaScript; {otherwise}</p></noscript>\n\
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
    fn a_hostile_name_is_text_in_every_page_and_a_long_one_is_cut_with_a_title() {
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
            assert_eq!(html.matches("<script").count(), 2, "ours and the data's: {html}");
            assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("onload='"), "{html}");
        }
        let html = super::page(&page);
        let heading = html.lines().find(|line| line.starts_with("<h1")).unwrap();
        assert!(heading.contains("title=\"&lt;/title&gt;&lt;script&gt;"), "{heading}");
        assert!(heading.split_once('>').unwrap().1.chars().count() < 300, "{heading}");
    }

    #[test]
    fn a_page_loads_its_own_data_and_the_assets_that_there_are_and_nothing_from_elsewhere() {
        let html = super::index(&site("m"));
        let names: Vec<&str> = assets().iter().map(|asset| asset.name).collect();
        let loaded: Vec<&str> =
            html.split("assets/").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect();
        assert_eq!(loaded, names);
        assert!(html.contains("src=\"data/index.js\"") && !html.contains("//"), "{html}");
    }

    #[test]
    fn plotly_is_the_whole_script_and_nothing_else() {
        let plotly = assets().into_iter().find(|asset| asset.name.starts_with("plotly-")).unwrap();
        let text = std::str::from_utf8(plotly.bytes).unwrap();
        assert!(text.contains("plotly.js v") && text.trim_end().ends_with("}));"), "{}", &text[..200]);
        assert!(!text.contains("MathJax.loader") && !text.contains("<script"));
    }

    #[test]
    fn the_assets_of_a_former_version_are_known_by_their_names_and_no_other_file_is() {
        assert!(assets().iter().all(|asset| is_asset(asset.name)));
        assert!(is_asset("site-0123456789ab.css") && is_asset("plotly-0123456789ab.min.js"));
        for other in
            ["site.css", "site-notes.css", "logo-0123456789ab.js", "site-0123456789ab.css.bak", "plotly-3.0.1.min.js"]
        {
            assert!(!is_asset(other), "{other}");
        }
    }
}
