//! Plots, as SVG: lines of points, with logarithmic axes where numbers go far.

use std::fmt::Write;

use super::report::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// One for each line, told apart without colours by their marks' places in the legend too.
const COLOURS: [&str; 6] = [
    "#0b62a4", "#c8501e", "#4a7d32", "#7a4fa3", "#8a6d00", "#3f7f7f",
];

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// What the legend calls it.
    pub(super) name: String,
    /// Its points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// One plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: &'static str,
    /// What is along it.
    pub(super) across: &'static str,
    /// What is up it.
    pub(super) up: String,
    /// What is in it.
    pub(super) lines: Vec<Line>,
}

/// An axis: from which number to which, and where they are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    least: f64,
    most: f64,
    is_logarithmic: bool,
}

impl Axis {
    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let most = numbers.clone().fold(f64::MIN, f64::max);
        let least = numbers.fold(f64::MAX, f64::min);
        let is_logarithmic = least > 0.0 && most / least > 20.0;
        if is_logarithmic {
            return Self {
                least: 10f64.powf(least.log10().floor()),
                most: 10f64.powf(most.log10().ceil()),
                is_logarithmic,
            };
        }
        Self {
            least: 0.0,
            most: if most > 0.0 { most * 1.1 } else { 1.0 },
            is_logarithmic,
        }
    }

    /// Where a number is, from 0 to 1.
    fn place(self, number: f64) -> f64 {
        let to = |number: f64| {
            if self.is_logarithmic {
                number.log10()
            } else {
                number
            }
        };
        (to(number) - to(self.least)) / (to(self.most) - to(self.least))
    }

    /// The numbers that are written beside it.
    fn ticks(self) -> Vec<f64> {
        if self.is_logarithmic {
            let (first, last) = (self.least.log10() as i32, self.most.log10() as i32);
            return (first..=last).map(|power| 10f64.powi(power)).collect();
        }
        let step = 10f64.powf((self.most / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|times| times * step)
            .into_iter()
            .find(|step| self.most / step <= 5.5)
            .unwrap_or(self.most);
        let count = (self.most / step) as u32;
        (0..=count).map(|at| f64::from(at) * step).collect()
    }
}

impl Plot {
    /// The plot; nothing if no line has two points.
    pub(super) fn svg(&self) -> Option<String> {
        let lines: Vec<_> = self.lines.iter().filter(|it| it.points.len() > 1).collect();
        if lines.is_empty() {
            return None;
        }
        let points = lines.iter().flat_map(|line| line.points.iter().copied());
        let across = Axis::of(points.clone().map(|point| point.0));
        let up = Axis::of(points.map(|point| point.1));
        let x = |number: f64| LEFT + across.place(number) * (WIDTH - LEFT - RIGHT);
        let y = |number: f64| HEIGHT - BOTTOM - up.place(number) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(self.title)
        );
        for tick in across.ticks() {
            let (at, foot, text) = (x(tick), HEIGHT - BOTTOM, number(tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{foot}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                foot + 15.0
            );
        }
        for tick in up.ticks() {
            let (at, end, text) = (y(tick), WIDTH - RIGHT, number(tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{end}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"12\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {:.1})\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escaped(self.across),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escaped(&self.up)
        );
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<path class=\"line\" stroke=\"{colour}\" d=\"M{}\"/>",
                path.join("L")
            );
            for (at, value) in &line.points {
                let said = format!("{}: {} at {}", line.name, number(*value), number(*at));
                let _ = writeln!(
                    svg,
                    "<circle fill=\"{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}</title></circle>",
                    x(*at),
                    y(*value),
                    escaped(&said)
                );
            }
        }
        svg += "</svg>\n<p class=\"legend\">";
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let name = escaped(&line.name);
            let _ = write!(
                svg,
                "<span><b style=\"background:{colour}\"></b>{name}</span> "
            );
        }
        svg += "</p>\n";
        Some(svg)
    }
}

/// Text as HTML and SVG take it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_where_numbers_go_far() {
        let axis = Axis::of([3.0, 1025.0].into_iter());
        assert!(axis.is_logarithmic);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0, 10000.0]);
        assert!((axis.place(100.0) - 0.5).abs() < 1e-9);
        let axis = Axis::of([2.0, 4.0].into_iter());
        assert!(!axis.is_logarithmic);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(axis.ticks().len() >= 3, "{:?}", axis.ticks());
    }

    #[test]
    fn a_plot_has_its_points_and_one_point_is_no_plot() {
        let line = |points: &[(f64, f64)]| Plot {
            title: "a < b",
            across: "N",
            up: "SYNCs".into(),
            lines: vec![Line {
                name: "here".into(),
                points: points.to_vec(),
            }],
        };
        let svg = line(&[(1.0, 2.0), (64.0, 2.0)]).svg().expect("two points");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b"), "{svg}");
        assert_eq!(line(&[(1.0, 2.0)]).svg(), None);
    }
}
