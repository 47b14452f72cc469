//! SVG drawings of the HTML page: the repetitions of a row, its change and interval, a curve over concurrency. Colours come
//! from the page: the classes `base` and `head`, and those of verdicts.

use std::fmt::Write;

use vllm_verdict::side::Side;
use vllm_verdict::v1::{RepetitionValue, Row};

use super::chart::{Curve, Point};
use super::{number, values};
use crate::escape;

const STRIP: (f64, f64) = (140.0, 34.0);
const CHANGE: (f64, f64) = (140.0, 26.0);
const LINES: (f64, f64) = (480.0, 250.0);

/// Linear map from the range `from` to the range `to`; the middle of `to` if `from` is a point.
fn scale(from: (f64, f64), to: (f64, f64)) -> impl Fn(f64) -> f64 {
    move |value| {
        let share = if from.1 > from.0 { (value - from.0) / (from.1 - from.0) } else { 0.5 };
        to.0 + share * (to.1 - to.0)
    }
}

fn open(out: &mut String, class: &str, (width, height): (f64, f64), title: &str, description: &str) {
    let (title, description) = (escape::html(title), escape::html(description));
    let _ = write!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         role=\"img\"><title>{title}</title><desc>{description}</desc>"
    );
}

/// The repetitions of a row: base above, head below, a bar at the value that is shown, and, if they are `paired`, a line from each base to its head.
pub fn strip(row: &Row, paired: bool) -> String {
    let [base, head] = [Side::Base, Side::Head].map(|side| row.numbers(side));
    let all = || base.iter().chain(&head).copied();
    let range = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if range.0 > range.1 {
        return String::new();
    }
    let x = scale(range, (6.0, STRIP.0 - 6.0));
    let [of_base, of_head] = values(row).map(escape::plain);
    let mut out = String::new();
    let title = format!("{}: base {of_base}, head {of_head}", escape::name(&row.label));
    let description = format!("{} repetitions of base and {} of head", base.len(), head.len());
    open(&mut out, "strip", STRIP, &title, &description);
    let shown = |value: &Option<RepetitionValue>| value.as_ref()?.shown();
    for (base, head) in row.base.iter().zip(&row.head).filter(|_| paired) {
        if let (Some(base), Some(head)) = (shown(base), shown(head)) {
            let _ = write!(out, "<path class=\"pair\" d=\"M{:.1} 10L{:.1} 24\"/>", x(base), x(head));
        }
    }
    let lanes = [("base", &base, Side::Base, 10.0), ("head", &head, Side::Head, 24.0)];
    for (class, values, side, y) in lanes {
        for value in values {
            let _ = write!(out, "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y}\" r=\"3.2\"/>", x(*value));
        }
        if let Some(centre) = row.centre(side) {
            let (x, top, bottom) = (x(centre), y - 7.0, y + 7.0);
            let _ = write!(out, "<path class=\"centre {class}\" d=\"M{x:.1} {top}V{bottom}\"/>");
        }
    }
    out + "</svg>"
}

/// The change of a row and its interval, on a scale from `-reach` to `reach`, with arrows for values beyond it. The band
/// covers changes below the threshold.
pub fn change(row: &Row, threshold: f64, reach: f64) -> String {
    let (Some(estimate), Some(low), Some(high)) = (row.estimate, row.low, row.high) else { return String::new() };
    let position = scale((-reach, reach), (6.0, CHANGE.0 - 6.0));
    let x = |value: f64| position(value.clamp(-reach, reach));
    let middle = CHANGE.1 / 2.0;
    let mut out = String::new();
    let title = format!("{}: change {}", escape::name(&row.label), number::change(estimate));
    let interval = number::interval(low, high);
    let description = format!("95 % interval {interval} %, minimum effect {}", number::percent(threshold));
    open(&mut out, &format!("change {}", class(row)), CHANGE, &title, &description);
    let (left, right) = (x(-threshold), x(threshold));
    let _ = write!(
        out,
        "<rect class=\"band\" x=\"{left:.1}\" y=\"2\" width=\"{:.1}\" height=\"{:.1}\"/>\
         <path class=\"zero\" d=\"M{:.1} 2V{:.1}\"/><path class=\"interval\" d=\"M{:.1} {middle}H{:.1}\"/>",
        right - left,
        CHANGE.1 - 4.0,
        x(0.0),
        CHANGE.1 - 2.0,
        x(low),
        x(high),
    );
    if estimate.abs() <= reach {
        let _ = write!(out, "<circle class=\"estimate\" cx=\"{:.1}\" cy=\"{middle}\" r=\"4\"/>", x(estimate));
    }
    for (beyond, tip, back) in [(low < -reach, 1.0, 7.0), (high > reach, CHANGE.0 - 1.0, CHANGE.0 - 7.0)] {
        if beyond {
            let (top, bottom) = (middle - 4.0, middle + 4.0);
            let _ = write!(out, "<path class=\"beyond\" d=\"M{tip:.1} {middle}L{back:.1} {top}V{bottom}Z\"/>");
        }
    }
    out + "</svg>"
}

/// The CSS class of a row's verdict.
pub fn class(row: &Row) -> String {
    row.verdict.as_str().replace(' ', "-")
}

/// A curve over concurrency: base and head as lines with points, concurrency on a logarithmic axis.
pub fn lines(curve: &Curve) -> String {
    let (left, right, top, bottom) = (52.0, LINES.0 - 16.0, 30.0, LINES.1 - 38.0);
    let ceiling = curve.ceiling();
    let concurrency = |at: usize| (curve.points[at].concurrency.max(1) as f64).ln();
    let x = scale((concurrency(0), concurrency(curve.points.len() - 1)), (left + 8.0, right - 8.0));
    let y = scale((0.0, ceiling), (bottom, top));
    let mut out = String::new();
    let title = format!("{}: {} over concurrency", curve.test.raw(), curve.metric);
    open(&mut out, "lines", LINES, &title, &described(curve));
    let heading = escape::html(format!("{}, {}", curve.metric, curve.unit.raw()));
    let _ = write!(out, "<text class=\"heading\" x=\"4\" y=\"14\">{heading}</text>");
    for step in 0..=4 {
        let value = ceiling * f64::from(step) / 4.0;
        let (at, label) = (y(value), number::value(value, number::decimals([ceiling]).min(3)));
        let label = number::trimmed(&label);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    let mut last = f64::NEG_INFINITY;
    for (at, point) in curve.points.iter().enumerate() {
        let position = x(concurrency(at));
        if position - last >= 26.0 {
            let _ = write!(
                out,
                "<text class=\"x\" x=\"{position:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 16.0,
                point.concurrency
            );
            last = position;
        }
    }
    let middle = f64::midpoint(left, right);
    let _ = write!(out, "<text class=\"x\" x=\"{middle:.1}\" y=\"{:.1}\">concurrency</text>", bottom + 32.0);
    let values = |of: fn(&Point) -> f64| curve.points.iter().map(of).collect::<Vec<f64>>();
    for (class, values) in [("base", values(|point| point.base)), ("head", values(|point| point.head))] {
        let spots: Vec<(f64, f64)> =
            values.into_iter().enumerate().map(|(at, value)| (x(concurrency(at)), y(value))).collect();
        let path: Vec<String> = spots.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = write!(out, "<path class=\"line {class}\" d=\"M{}\"/>", path.join("L"));
        for (x, y) in spots {
            let _ = write!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
        }
    }
    out + "</svg>"
}

/// The values of a curve as text, for screen readers.
fn described(curve: &Curve) -> String {
    let decimals = number::decimals(curve.points.iter().flat_map(|point| [point.base, point.head]));
    let show = |value| number::value(value, decimals);
    let points = curve
        .points
        .iter()
        .map(|point| format!("at {}: base {}, head {}", point.concurrency, show(point.base), show(point.head)));
    points.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_row_is_drawn_to_scale() {
        let mut row = example::comparison().rows.remove(0);
        let values = |values: [f64; 2]| values.map(|value| Some(RepetitionValue::One(value))).to_vec();
        (row.base, row.head) = (values([100.0, 110.0]), values([90.0, 100.0]));
        (row.estimate, row.low, row.high) = (Some(-0.1), Some(-0.3), Some(0.0));
        insta::assert_snapshot!(strip(&row, true).replace('>', ">\n"), @r#"
        <svg class="strip" viewBox="0 0 140 34" width="140" height="34" role="img">
        <title>
        Output throughput: base 105.1 tok/s, head 94.6 tok/s</title>
        <desc>
        2 repetitions of base and 2 of head</desc>
        <path class="pair" d="M70.0 10L6.0 24"/>
        <path class="pair" d="M134.0 10L70.0 24"/>
        <circle class="base" cx="70.0" cy="10" r="3.2"/>
        <circle class="base" cx="134.0" cy="10" r="3.2"/>
        <path class="centre base" d="M101.2 3V17"/>
        <circle class="head" cx="6.0" cy="24" r="3.2"/>
        <circle class="head" cx="70.0" cy="24" r="3.2"/>
        <path class="centre head" d="M37.2 17V31"/>
        </svg>
        "#);
        insta::assert_snapshot!(change(&row, 0.02, 0.2).replace('>', ">\n"), @r#"
        <svg class="change unchanged" viewBox="0 0 140 26" width="140" height="26" role="img">
        <title>
        Output throughput: change −10.0 %</title>
        <desc>
        95 % interval −30.0 … 0.0 %, minimum effect 2 %</desc>
        <rect class="band" x="63.6" y="2" width="12.8" height="22.0"/>
        <path class="zero" d="M70.0 2V24.0"/>
        <path class="interval" d="M6.0 13H70.0"/>
        <circle class="estimate" cx="38.0" cy="13" r="4"/>
        <path class="beyond" d="M1.0 13L7.0 9V17Z"/>
        </svg>
        "#);
    }

    #[test]
    fn a_change_beyond_the_scale_is_an_arrow() {
        let mut row = example::comparison().rows.remove(0);
        (row.estimate, row.low, row.high) = (Some(4.3), Some(1.4), Some(10.6));
        let drawn = change(&row, 0.02, 0.5);
        assert!(!drawn.contains("estimate") && drawn.matches("beyond").count() == 1, "{drawn}");
        row.estimate = Some(0.4);
        assert!(change(&row, 0.02, 0.5).contains("estimate"));
    }

    #[test]
    fn a_row_without_values_is_not_drawn() {
        let mut row = example::comparison().rows.remove(0);
        (row.base, row.head, row.estimate) = (Vec::new(), Vec::new(), None);
        assert_eq!(strip(&row, true) + &change(&row, 0.02, 0.2), "");
    }
}
