//! Loss curves as an SVG.

use crate::training::{Run, STEPS};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
/// Room for the numbers.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 48.0;

/// The curve below is wide and pale, so that it can be seen under the other where they agree.
const STROKES: [(&str, f64); 2] = [("#f2a65a", 6.0), ("#1f4e79", 1.5)];

/// The losses of both runs over their steps, on a logarithmic scale.
pub fn svg(runs: &[Run; 2]) -> String {
    let all = || runs.iter().flat_map(|run| &run.losses);
    let least = all().copied().fold(f32::MAX, f32::min).max(1e-6);
    let most = all().copied().fold(least, f32::max);
    // Whole powers of ten around the losses.
    let (low, high) = (least.log10().floor(), most.log10().ceil());
    let steps = runs[0].losses.len();
    let x = |step: usize| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / steps as f64;
    let y = |loss: f32| {
        let share = f64::from((loss.max(least).log10() - low) / (high - low).max(1.0));
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\">Loss of a step</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">epoch</text>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0
    );
    for power in low as i32..=high as i32 {
        let at = y(10.0_f32.powi(power).max(least));
        let at = if power == low as i32 {
            HEIGHT - BOTTOM
        } else {
            at
        };
        svg += &format!(
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            10.0_f64.powi(power)
        );
    }
    let epochs = steps / STEPS;
    for epoch in (0..=epochs).step_by(epochs.div_ceil(10).max(1)) {
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{epoch}</text>\n",
            x(epoch * STEPS),
            HEIGHT - BOTTOM + 18.0
        );
    }
    for (i, (run, (color, width))) in runs.iter().zip(STROKES).enumerate() {
        let points = run.losses.iter().enumerate();
        let points = points.map(|(step, loss)| format!("{:.1},{:.1}", x(step), y(*loss)));
        let points = points.collect::<Vec<_>>().join(" ");
        let legend = WIDTH - RIGHT - 210.0 + 105.0 * i as f64;
        svg += &format!(
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" points=\"{points}\"/>\n\
             <path d=\"M{legend} 20h24\" stroke=\"{color}\" stroke-width=\"{width}\"/>\n\
             <text x=\"{}\" y=\"24\">{}</text>\n",
            legend + 30.0,
            run.name
        );
    }
    svg + "</svg>\n"
}
