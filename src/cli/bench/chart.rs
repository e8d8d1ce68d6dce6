//! A drawing of the table: the share of the yardstick over the number of classes.

use std::fmt::Write;

use softxent::Dtype;

use super::cases::{Case, LabelsOf, Op};
use super::report::{CEILING, Line, Report};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
/// The edges of the plot.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 736.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 470.0;
/// Where names of lines are.
const LEGEND: f64 = 760.0;
/// Letters of a line of text, at most, of the size of the subtitle.
const LETTERS: usize = 120;
/// Between two numbers below the axis, so that they do not touch.
const APART: f64 = 52.0;

/// One line of the drawing.
struct Series {
    name: String,
    case: Case,
    /// Classes and share.
    points: Vec<(usize, f64)>,
}

pub fn svg(report: &Report) -> String {
    let drawn = all_series(&report.cases);
    let axes = Axes::of(&drawn);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    put(
        &mut text,
        (LEFT, 30.0),
        "font-size=\"19\" font-weight=\"600\"",
        "softxent: share of the memory's rate",
    );
    put(
        &mut text,
        (LEFT, 52.0),
        "fill=\"#555\"",
        &cut(&report.adapter_in_words),
    );
    let second = format!(
        "{}, softxent {}, {}",
        report.driver, report.version, report.date
    );
    put(&mut text, (LEFT, 70.0), "fill=\"#555\"", &cut(&second));
    axes.draw(&mut text, &drawn);
    for series in &drawn {
        series.draw(&mut text, &axes);
    }
    legend(&mut text, &drawn);
    let middle = (LEFT + RIGHT) / 2.0;
    let along = format!(
        "text-anchor=\"middle\" transform=\"rotate(-90 20 {0})\"",
        (TOP + BOTTOM) / 2.0
    );
    put(
        &mut text,
        (20.0, (TOP + BOTTOM) / 2.0),
        &along,
        "share of the ceiling",
    );
    let what = "classes (logarithmic)";
    put(
        &mut text,
        (middle, BOTTOM + 46.0),
        "text-anchor=\"middle\"",
        what,
    );
    put(
        &mut text,
        (LEFT, HEIGHT - 16.0),
        "font-size=\"12\" fill=\"#555\"",
        CEILING,
    );
    text += "</svg>\n";
    text
}

/// The planned kernel of each op and dtype, with the most rows of each number of classes.
fn all_series(lines: &[Line]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    let mut timed: Vec<(&Line, f64)> = Vec::new();
    for line in lines {
        if let Some(share) = line.share.filter(|share| share.is_finite()) {
            timed.push((line, share));
        }
    }
    // The last of equals stays.
    timed.sort_by(|(a, x), (b, y)| {
        let order = (a.classes, a.rows, a.chosen).cmp(&(b.classes, b.rows, b.chosen));
        order.then(x.total_cmp(y))
    });
    for (line, share) in timed {
        let name = name(&line.case);
        let at = match all.iter().position(|series| series.name == name) {
            Some(at) => at,
            None => {
                let (case, points) = (line.case, Vec::new());
                all.push(Series { name, case, points });
                all.len() - 1
            }
        };
        let points = &mut all[at].points;
        match points.last_mut() {
            Some(last) if last.0 == line.classes => last.1 = share,
            _ => points.push((line.classes, share)),
        }
    }
    // As they are in the table.
    let place = |series: &Series| {
        let of = |line: &Line| name(&line.case) == series.name;
        lines.iter().position(of)
    };
    all.sort_by_key(place);
    all
}

/// What a line of the drawing is called.
fn name(case: &Case) -> String {
    format!("{} {}", case.job(), case.dtype.name())
}

/// From classes and shares to places.
struct Axes {
    /// Logarithms of the first and the last number of classes.
    from: f64,
    to: f64,
    /// The largest share, and what is between two lines.
    top: f64,
    step: f64,
}

impl Axes {
    fn of(drawn: &[Series]) -> Axes {
        let points = || drawn.iter().flat_map(|series| &series.points);
        let classes = || points().map(|&(classes, _)| (classes as f64).ln());
        let (mut from, mut to) = (
            classes().fold(f64::INFINITY, f64::min),
            classes().fold(f64::NEG_INFINITY, f64::max),
        );
        if from > to {
            (from, to) = (0.0, 1.0);
        }
        if to - from < 1.0 {
            (from, to) = (from - 1.0, to + 1.0);
        }
        // A yardstick may be short, of small buffers and on software drivers.
        let most = points().map(|&(_, share)| share).fold(1.0, f64::max);
        let step = match most {
            most if most <= 1.0 => 0.2,
            most => 10f64.powf((most / 5.0).log10().ceil()) / if most <= 2.5 { 2.0 } else { 1.0 },
        };
        let top = (most / step - 1e-9).ceil() * step;
        Axes {
            from,
            to,
            top,
            step,
        }
    }

    fn x(&self, classes: usize) -> f64 {
        let share = ((classes as f64).ln() - self.from) / (self.to - self.from);
        // Points stay off the edges.
        LEFT + 16.0 + share * (RIGHT - LEFT - 32.0)
    }

    fn y(&self, share: f64) -> f64 {
        BOTTOM - share / self.top * (BOTTOM - TOP)
    }

    fn draw(&self, text: &mut String, drawn: &[Series]) {
        for line in 0..=(self.top / self.step).round() as usize {
            let share = line as f64 * self.step;
            let y = self.y(share);
            let whole = (share - 1.0).abs() < 1e-9;
            let color = if whole || line == 0 {
                "#888"
            } else {
                "#e4e4e4"
            };
            let _ = writeln!(
                text,
                "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{color}\"/>"
            );
            let percent = format!("{:.0} %", 100.0 * share);
            put(text, (LEFT - 8.0, y + 4.0), "text-anchor=\"end\"", &percent);
        }
        let points = drawn.iter().flat_map(|series| &series.points);
        let mut classes: Vec<usize> = points.map(|&(classes, _)| classes).collect();
        classes.sort_unstable();
        classes.dedup();
        let last = classes.last().map_or(0.0, |&classes| self.x(classes));
        let mut before = f64::NEG_INFINITY;
        for &classes in &classes {
            let x = self.x(classes);
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{BOTTOM}\" y2=\"{:.1}\" stroke=\"#888\"/>",
                BOTTOM + 5.0
            );
            if x == last || (x - before >= APART && last - x >= APART) {
                let place = (x, BOTTOM + 21.0);
                put(text, place, "text-anchor=\"middle\"", &classes.to_string());
                before = x;
            }
        }
    }
}

impl Series {
    /// A color for the op, dashes for the dtype, rings for dense labels.
    fn style(&self) -> (&'static str, &'static str, bool) {
        // M. Okabe, K. Ito, Color Universal Design, 2002.
        let color = match self.case.op {
            Op::LossGrad => "#0072b2",
            Op::Loss => "#d55e00",
            Op::Softmax => "#009e73",
            Op::SoftmaxBackward => "#cc79a7",
        };
        let dashes = match self.case.dtype {
            Dtype::F32 => "none",
            Dtype::F16 => "9 4",
            Dtype::Bf16 => "3 3",
        };
        (color, dashes, self.case.labels == Some(LabelsOf::Dense))
    }

    fn draw(&self, text: &mut String, axes: &Axes) {
        let places = self
            .points
            .iter()
            .map(|&(classes, share)| (axes.x(classes), axes.y(share)));
        self.line(text, &places.collect::<Vec<_>>());
    }

    fn line(&self, text: &mut String, places: &[(f64, f64)]) {
        let (color, dashes, ring) = self.style();
        let joined: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            joined.join(" ")
        );
        let fill = if ring { "#fff" } else { color };
        for (x, y) in places {
            let _ = writeln!(
                text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
            );
        }
    }
}

fn legend(text: &mut String, drawn: &[Series]) {
    let step = ((BOTTOM - TOP) / drawn.len().max(1) as f64).min(24.0);
    for (at, series) in drawn.iter().enumerate() {
        let y = TOP + 8.0 + at as f64 * step;
        series.line(text, &[(LEGEND, y), (LEGEND + 32.0, y)]);
        put(
            text,
            (LEGEND + 44.0, y + 4.0),
            "font-size=\"12\"",
            &series.name,
        );
    }
    if drawn.is_empty() {
        let middle = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        put(text, middle, "text-anchor=\"middle\"", "nothing was timed");
    }
}

fn put(text: &mut String, (x, y): (f64, f64), attributes: &str, what: &str) {
    let what = escaped(what);
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{what}</text>"
    );
}

/// As long as fits.
fn cut(line: &str) -> String {
    match line.chars().count() {
        count if count <= LETTERS => line.to_owned(),
        _ => line.chars().take(LETTERS - 1).chain(['…']).collect(),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // XML has no other control characters.
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}
