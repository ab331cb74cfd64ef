//! A plot as inline SVG: lines over two axes, with a legend above. Colours come from the page's style, so that the plot follows light and
//! dark; every point tells its value when pointed at.

use std::fmt::Write as _;

use super::scale::{Scale, number};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 410.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 18.0;
const BOTTOM: f64 = 52.0;
/// A row of the legend.
const LEGEND_ROW: f64 = 20.0;
/// Width of a character of the legend, near enough.
const CHARACTER: f64 = 6.9;
/// Length of a line's sample in the legend.
const SAMPLE: f64 = 26.0;
/// Room for the title above a plot in a file of its own.
const TITLE: f64 = 34.0;
/// Colours that the page's style has (`.h0` and on).
pub const HUES: usize = 6;

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Logarithmic.
    pub log: bool,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Through.
    Solid,
    /// In dashes.
    Dashed,
    /// In dots.
    Dotted,
    /// Thin and grey, without points: something to compare with.
    Reference,
}

/// A line and its points.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Its colour, one of [`HUES`].
    pub hue: usize,
    /// How it is drawn.
    pub stroke: Stroke,
}

impl Line {
    /// Points that have a place.
    fn drawn(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// A point that is not to be taken as it stands.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub at: (f64, f64),
    /// What went wrong, in a word or two, beside a cross; without it a ring is drawn.
    pub label: Option<String>,
    /// In a sentence, shown when pointed at.
    pub detail: String,
}

/// A plot with its words.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it is called on the page, unique there.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What is seen, and how to read it.
    pub caption: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Lines, in the order of the legend.
    pub lines: Vec<Line>,
    /// Marks.
    pub marks: Vec<Mark>,
}

/// Text for XML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The plot's frame on the page and its scales.
struct Frame {
    x: Scale,
    y: Scale,
    top: f64,
}

impl Frame {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - BOTTOM - self.top))
    }
}

impl Plot {
    /// An SVG file with the page's `style` in it, title and all, that follows light and dark wherever it is shown.
    pub fn file(&self, style: &str) -> String {
        let element = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" viewBox=\"0 {} {WIDTH} {}\">",
            HEIGHT + TITLE,
            -TITLE,
            HEIGHT + TITLE
        );
        format!(
            "{element}\n<style>\n{}</style>\n<rect y=\"{}\" width=\"{WIDTH}\" height=\"{}\" style=\"fill: var(--page)\"/>\n\
             <text x=\"{LEFT}\" y=\"-12\" style=\"font-size: 15px; font-weight: 600\">{}</text>\n{}</svg>\n",
            escape(style),
            -TITLE,
            HEIGHT + TITLE,
            escape(&self.title),
            self.drawing()
        )
    }

    /// The SVG element.
    pub fn svg(&self) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{0}-title\"><title id=\"{0}-title\">{1}</title>\n{2}</svg>",
            escape(&self.id),
            escape(&self.title),
            self.drawing()
        )
    }

    /// What is in it.
    fn drawing(&self) -> String {
        let scale = |axis: &Axis, values: Vec<f64>| {
            if axis.log { Scale::log(values.into_iter()) } else { Scale::linear(values.into_iter()) }
        };
        let points = || self.lines.iter().flat_map(Line::drawn);
        let (legend, top) = self.legend();
        let frame = Frame { x: scale(&self.x, points().map(|p| p.0).collect()), y: scale(&self.y, points().map(|p| p.1).collect()), top };
        let mut svg = legend;
        self.axes(&frame, &mut svg);
        for line in &self.lines {
            self.line(&frame, line, &mut svg);
        }
        for mark in &self.marks {
            self.mark(&frame, mark, &mut svg);
        }
        svg
    }

    fn mark(&self, frame: &Frame, mark: &Mark, svg: &mut String) {
        let ((x, y), detail) = (frame.at(mark.at), escape(&mark.detail));
        let _ = match &mark.label {
            None => writeln!(svg, "<g class=\"ring\"><title>{detail}</title><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"/></g>"),
            Some(label) => {
                let (anchor, shift) = if x > WIDTH * 0.75 { ("end", -9.0) } else { ("start", 9.0) };
                writeln!(
                    svg,
                    "<g class=\"mark\"><title>{detail}</title><path d=\"M{:.1} {:.1}l10 10m0 -10l-10 10\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text></g>",
                    x - 5.0,
                    y - 5.0,
                    x + shift,
                    y - 7.0,
                    escape(label)
                )
            }
        };
    }

    /// The legend, in columns, and where the plot begins under it.
    fn legend(&self) -> (String, f64) {
        let mut text = String::new();
        let longest = self.lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
        let width = SAMPLE + 8.0 + longest as f64 * CHARACTER + 20.0;
        let columns = (((WIDTH - LEFT) / width) as usize).max(1);
        for (place, line) in self.lines.iter().enumerate() {
            let (x, y) = (LEFT + (place % columns) as f64 * width, 12.0 + (place / columns) as f64 * LEGEND_ROW);
            let _ = writeln!(
                text,
                "<g class=\"{}\"><path class=\"line\" d=\"M{x:.1} {y:.1}h{SAMPLE}\"/></g><text class=\"legend\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                class(line),
                x + SAMPLE + 8.0,
                y + 4.0,
                escape(&line.label)
            );
        }
        (text, 14.0 + self.lines.len().div_ceil(columns) as f64 * LEGEND_ROW)
    }

    fn axes(&self, frame: &Frame, svg: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for &tick in &frame.y.ticks {
            let y = frame.at((0.0, tick)).1;
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                number(tick)
            );
        }
        for &tick in &frame.x.ticks {
            let x = frame.at((tick, 0.0)).0;
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 19.0,
                number(tick)
            );
        }
        let middle = (frame.top + bottom) / 2.0;
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 10.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn line(&self, frame: &Frame, line: &Line, svg: &mut String) {
        let mut path = String::new();
        for (place, point) in line.drawn().enumerate() {
            let (x, y) = frame.at(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' });
        }
        let _ = writeln!(svg, "<g class=\"{}\"><path class=\"line\" d=\"{path}\"/>", class(line));
        if line.stroke != Stroke::Reference {
            for point in line.drawn() {
                let (x, y) = frame.at(point);
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}: {} at {} ({} at {})</title></circle>",
                    escape(&line.label),
                    number(point.1),
                    number(point.0),
                    escape(&self.y.label),
                    escape(&self.x.label)
                );
            }
        }
        svg.push_str("</g>\n");
    }
}

fn class(line: &Line) -> String {
    let stroke = match line.stroke {
        Stroke::Solid => "solid",
        Stroke::Dashed => "dashed",
        Stroke::Dotted => "dotted",
        Stroke::Reference => return "reference".to_owned(),
    };
    format!("h{} {stroke}", line.hue % HUES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, log: bool) -> Plot {
        let axis = |label: &str, log| Axis { label: label.into(), log };
        let line = |label: &str, stroke| Line { label: label.into(), points: points.clone(), hue: 1, stroke };
        Plot {
            id: "p".into(),
            title: "a < b & \"c\"".into(),
            caption: String::new(),
            x: axis("x, <unit>", false),
            y: axis("y, ms", log),
            lines: vec![line("one & only", Stroke::Solid), line("to compare", Stroke::Reference)],
            marks: vec![Mark { at: (1.0, 2.0), label: Some("hung".into()), detail: "it <hung>".into() }],
        }
    }

    #[test]
    fn every_point_is_drawn_inside_the_frame_in_well_formed_xml() {
        for log in [false, true] {
            let points = vec![(0.0, 0.0), (50.0, 3.0), (1000.0, 250.0)];
            let svg = plot(points.clone(), log).svg();
            let document = roxmltree::Document::parse(&svg).unwrap();
            let circles: Vec<_> = document.descendants().filter(|n| n.has_tag_name("circle")).collect();
            assert_eq!(circles.len(), points.len());
            for circle in circles {
                let value = |name| circle.attribute(name).unwrap().parse::<f64>().unwrap();
                assert!((LEFT..=WIDTH - RIGHT).contains(&value("cx")) && (0.0..=HEIGHT - BOTTOM).contains(&value("cy")));
            }
            assert!(document.descendants().any(|n| n.text() == Some("y, ms")), "axes have their units");
            assert!(document.descendants().any(|n| n.text() == Some("hung")));
        }
    }

    #[test]
    fn a_file_of_its_own_has_all_that_it_needs() {
        let file = plot(vec![(0.0, 0.0), (50.0, 3.0)], false).file("text { fill: var(--ink); } a > b {}");
        let document = roxmltree::Document::parse(&file).unwrap();
        assert_eq!(document.root_element().tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
        assert!(document.descendants().any(|n| n.text() == Some("a < b & \"c\"")), "its title");
        let style = document.descendants().find(|n| n.tag_name().name() == "style").and_then(|n| n.text());
        assert!(style.is_some_and(|text| text.contains("a > b")));
    }

    #[test]
    fn any_points_are_drawn() {
        use proptest::prelude::*;
        proptest!(|(points in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..20), log in any::<bool>(), name in ".{0,20}")| {
            let svg = Plot { title: name, ..plot(points, log) }.svg();
            let document = roxmltree::Document::parse(&svg).unwrap();
            let drawn = document.descendants().flat_map(|n| n.attributes()).filter(|a| ["d", "x", "y", "cx", "cy"].contains(&a.name()));
            for attribute in drawn {
                prop_assert!(!attribute.value().contains("NaN") && !attribute.value().contains("inf"), "{svg}");
            }
        });
    }
}
