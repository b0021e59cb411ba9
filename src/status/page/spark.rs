//! A line without axes: how a figure went lately.

use maud::{Markup, html};

use super::super::history::KEPT;

/// Height of the drawing, in its own units; its width is one for each sample.
const HEIGHT: f64 = 40.0;

/// The line through the values, the oldest first and the latest at the right edge. `said` is for who does not see it.
pub(super) fn spark(values: &[f64], said: &str) -> Markup {
    let width = KEPT as f64;
    let line = points(values);
    html! {
        svg.spark viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(said) {
            @if let (Some(first), Some(last)) = (line.first(), line.last()) {
                path.area d=(format!("M{:.1},{HEIGHT} L{} L{:.1},{HEIGHT} Z", first.0, joined(&line), last.0)) {}
                path.line d=(format!("M{}", joined(&line))) {}
            }
        }
    }
}

fn points(values: &[f64]) -> Vec<(f64, f64)> {
    let most = values.iter().copied().fold(0.0, f64::max);
    let begin = KEPT.saturating_sub(values.len());
    let height = |value: f64| if most > 0.0 { (HEIGHT - 2.0) * (1.0 - value / most) + 1.0 } else { HEIGHT - 1.0 };
    values.iter().enumerate().map(|(index, value)| ((begin + index + 1) as f64, height(*value))).collect()
}

fn joined(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.0},{y:.1}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_at_the_top_and_the_latest_at_the_right() {
        let points = points(&[0.0, 5.0, 10.0]);
        assert_eq!(points.iter().map(|(_, y)| *y).collect::<Vec<_>>(), [39.0, 20.0, 1.0]);
        assert_eq!(points.last().map(|(x, _)| *x), Some(KEPT as f64));
    }

    #[test]
    fn nothing_at_all_lies_at_the_bottom() {
        assert!(points(&[0.0, 0.0]).iter().all(|(_, y)| *y == 39.0));
        assert!(points(&[]).is_empty());
    }
}
