//! A small writer of line charts: both axes logarithmic, the same bytes for the same figures.

use std::fmt::Write as _;

/// One contender's line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Size and figure; both above zero.
    pub points: Vec<(f64, f64)>,
}

/// One chart.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 34.0;
const LEGEND_ROW: f64 = 18.0;
/// Okabe and Ito's colours, which the colour-blind can tell apart; ours is the first.
const COLOURS: [&str; 9] = [
    "#d55e00", "#000000", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888",
    "#b0a000",
];

/// An SVG of the panels, two in a row, with one legend below. `unit` stands on the vertical axes.
#[must_use]
pub fn svg(panels: &[Panel], unit: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for line in panels.iter().flat_map(|panel| &panel.lines) {
        if !names.contains(&line.name.as_str()) {
            names.push(&line.name);
        }
    }
    let rows = panels.len().div_ceil(2);
    let legend_rows = names.len().div_ceil(3);
    let (width, charts) = (2.0 * WIDTH, rows as f64 * HEIGHT);
    let height = charts + (legend_rows as f64 + 1.0) * LEGEND_ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let x = (index % 2) as f64 * WIDTH;
        let y = (index / 2) as f64 * HEIGHT;
        draw(&mut out, panel, (x, y), &names, unit);
    }
    for (index, name) in names.iter().enumerate() {
        let x = LEFT + (index % 3) as f64 * (width - LEFT) / 3.0;
        let y = charts + (index / 3 + 1) as f64 * LEGEND_ROW;
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {:.1}h22\" stroke=\"{colour}\" stroke-width=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 4.0,
            stroke(index),
            x + 28.0,
            escape(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn stroke(index: usize) -> &'static str {
    if index == 0 { "3" } else { "1.5" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The powers of ten around some values: the exponents of the first and the last.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
    let high = values.fold(f64::NEG_INFINITY, f64::max).log10().ceil() as i32;
    (low, high.max(low + 1))
}

fn draw(out: &mut String, panel: &Panel, origin: (f64, f64), names: &[&str], unit: &str) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    if points().next().is_none() {
        return;
    }
    let (x_low, x_high) = decades(points().map(|point| point.0));
    let (y_low, y_high) = decades(points().map(|point| point.1));
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x_of = |value: f64| {
        let share = (value.log10() - f64::from(x_low)) / f64::from(x_high - x_low);
        origin.0 + LEFT + share * plot_width
    };
    let y_of = |value: f64| {
        let share = (value.log10() - f64::from(y_low)) / f64::from(y_high - y_low);
        origin.1 + TOP + (1.0 - share) * plot_height
    };
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"13\" font-weight=\"bold\">{}</text>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        origin.0 + LEFT,
        origin.1 + 16.0,
        escape(&panel.title),
        origin.0 + 6.0,
        origin.1 + TOP - 5.0,
        escape(unit)
    );
    for exponent in x_low..=x_high {
        let x = x_of(10_f64.powi(exponent));
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {:.1}v{plot_height:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            origin.1 + TOP,
            origin.1 + TOP + plot_height + 16.0,
            power(exponent)
        );
    }
    for exponent in y_low..=y_high {
        let y = y_of(10_f64.powi(exponent));
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {y:.1}h{plot_width:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            origin.0 + LEFT,
            origin.0 + LEFT - 5.0,
            y + 4.0,
            power(exponent)
        );
    }
    for line in &panel.lines {
        let index = names
            .iter()
            .position(|name| *name == line.name)
            .unwrap_or_default();
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for (n, &(x, y)) in line.points.iter().enumerate() {
            let (x, y) = (x_of(x), y_of(y));
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"
            );
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\"/>",
            stroke(index)
        );
    }
}

fn power(exponent: i32) -> String {
    match exponent {
        6.. => format!("{}M", 10_u64.pow(exponent as u32 - 6)),
        3.. => format!("{}k", 10_u64.pow(exponent as u32 - 3)),
        0.. => 10_u64.pow(exponent as u32).to_string(),
        _ => format!(
            "{:.*}",
            exponent.unsigned_abs() as usize,
            10_f64.powi(exponent)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Panel, decades, power, svg};

    #[test]
    fn the_same_figures_give_the_same_bytes() {
        let panel = Panel {
            title: "a < b".to_owned(),
            lines: vec![Line {
                name: "ours & theirs".to_owned(),
                points: vec![(1.0, 3.0), (1_000_000.0, 40.0)],
            }],
        };
        let drawn = svg(std::slice::from_ref(&panel), "ns");
        assert_eq!(drawn, svg(&[panel], "ns"));
        assert!(drawn.contains("a &lt; b") && drawn.contains("ours &amp; theirs"));
        assert_eq!(drawn.matches("<circle").count(), 2);
        assert!(!drawn.contains("NaN"));
    }

    #[test]
    fn axes_enclose_their_values() {
        assert_eq!(decades([2.0, 300.0].into_iter()), (0, 3));
        assert_eq!(decades([1.0].into_iter()), (0, 1));
        assert_eq!(
            (power(-1), power(0), power(4), power(6)),
            ("0.1".into(), "1".into(), "10k".into(), "1M".into())
        );
    }
}
