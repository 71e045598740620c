//! The report as a picture: SVG that follows its reader's light or dark scheme.

use std::fmt::Write;

/// What is drawn, from top to bottom.
#[derive(Default)]
pub struct Chart {
    pub title: String,
    /// Versions, machine, method: small print under the title.
    pub lines: Vec<String>,
    pub bars: Vec<Bar>,
    pub curves: Curves,
}

/// A ratio over the rounds of a run.
pub struct Bar {
    /// The heading that neighbouring bars of the same group share.
    pub group: String,
    pub name: String,
    pub spread: Spread,
    pub aim: Option<f64>,
    pub more_is_better: bool,
}

/// Least, middle and most of the rounds.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// One figure as it goes with a number of clients.
#[derive(Default)]
pub struct Curves {
    pub title: String,
    /// (who, (clients, figure), clients growing)
    pub lines: Vec<(String, Vec<(f64, Spread)>)>,
}

pub const WIDTH: f64 = 920.0;
const MARGIN: f64 = 20.0;
/// Left and right end of what is plotted; names stand before it, numbers behind it.
pub const PLOT: (f64, f64) = (310.0, 730.0);
const LINE: f64 = 18.0;
const BAR_ROW: f64 = 22.0;
const BAR_HEIGHT: f64 = 12.0;
const CURVES_HEIGHT: f64 = 200.0;

/// Widest average width of a letter: in the small print; in the title.
const LETTER: f64 = 7.0;
pub const TITLE_LETTER: f64 = 10.0;

/// Least and most octaves of the ratio axis to each side of 1: 1/2 to 2, 1/64 to 64.
const OCTAVES: (i32, i32) = (1, 6);

const STYLE: &str = "
text { font: 12px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 18px; font-weight: 600 }
.group { font-weight: 600 }
.faint { fill: #59636e }
.ground { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.one { stroke: #1f2328; stroke-width: 1.5 }
.better { fill: #2da58a }
.worse { fill: #e0803a }
.whisker { stroke: #1f2328; stroke-width: 1.2 }
.aim { fill: #ffffff; stroke: #6639ba; stroke-width: 2 }
.line0 { fill: none; stroke: #59636e; stroke-width: 2 }
.line1 { fill: none; stroke: #0969da; stroke-width: 2 }
.dot0 { fill: #59636e }
.dot1 { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.faint { fill: #9198a1 }
.ground { fill: #0d1117 }
.grid { stroke: #3d444d }
.one, .whisker { stroke: #f0f6fc }
.better { fill: #1f7f6b }
.worse { fill: #b3601f }
.aim { fill: #0d1117; stroke: #ab7df8 }
.line0 { stroke: #9198a1 }
.line1 { stroke: #4493f8 }
.dot0 { fill: #9198a1 }
.dot1 { fill: #4493f8 }
}
";

impl Chart {
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty() && self.curves.lines.is_empty()
    }

    /// The whole file. A figure that is no number is left out; one beyond the axis is drawn at its end.
    pub fn svg(&self) -> String {
        let mut canvas = Canvas { out: String::new(), y: MARGIN };
        canvas.header(self);
        let bars: Vec<&Bar> = self.bars.iter().filter(|bar| bar.spread.is_finite()).collect();
        if !bars.is_empty() {
            canvas.bars(&bars);
        }
        let curves = self.curves.lines.iter().map(|(who, points)| {
            let points =
                points.iter().copied().filter(|(clients, spread)| *clients >= 1.0 && spread.is_finite());
            (who.as_str(), points.collect::<Vec<_>>())
        });
        let curves: Vec<_> = curves.filter(|(_, points)| !points.is_empty()).collect();
        if !curves.is_empty() {
            canvas.curves(&self.curves.title, &curves);
        }
        let height = (canvas.y + MARGIN).ceil();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" x=\"0\" y=\"0\" width=\"{WIDTH}\" height=\"{height}\"/>\n{}</svg>\n",
            escaped(&self.title),
            canvas.out
        )
    }
}

impl Spread {
    /// The spread of `sorted` values; `None`: there are none.
    pub fn of(sorted: &[f64], median: f64) -> Option<Spread> {
        Some(Spread { low: *sorted.first()?, median, high: *sorted.last()? })
    }

    fn is_finite(&self) -> bool {
        [self.low, self.median, self.high].iter().all(|value| value.is_finite())
    }
}

/// What has been drawn, and how far down it reaches.
struct Canvas {
    out: String,
    y: f64,
}

/// Where a text stands relative to its x.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    fn header(&mut self, chart: &Chart) {
        self.y += 8.0;
        self.text("title", MARGIN, Anchor::Start, &fitting(&chart.title, WIDTH - 2.0 * MARGIN, TITLE_LETTER));
        for line in &chart.lines {
            self.y += LINE;
            self.text("faint", MARGIN, Anchor::Start, &fitting(line, WIDTH - 2.0 * MARGIN, LETTER));
        }
        self.y += LINE;
    }

    /// Every bar begins at 1: nginx.
    fn bars(&mut self, bars: &[&Bar]) {
        let axis = RatioAxis::over(bars);
        let top = self.y;
        self.y += LINE;
        for octave in -axis.octaves..=axis.octaves {
            let ratio = 2f64.powi(octave);
            let label = if octave < 0 { format!("1/{}", 2f64.powi(-octave)) } else { ratio.to_string() };
            self.text("faint", axis.x(ratio), Anchor::Middle, &label);
        }
        // The grid stands behind the bars, so before them in the file; its length is known after they are drawn.
        let grid_at = self.out.len();
        let mut group = "";
        for bar in bars {
            if bar.group != group {
                group = &bar.group;
                self.y += BAR_ROW + 4.0;
                self.text(
                    "group",
                    MARGIN,
                    Anchor::Start,
                    &fitting(group, WIDTH - 2.0 * MARGIN, LETTER + 0.5),
                );
            }
            self.y += BAR_ROW;
            self.bar(bar, &axis);
        }
        let (from, to) = (top + LINE + 8.0, self.y + 8.0);
        let mut grid = String::new();
        for octave in -axis.octaves..=axis.octaves {
            let x = axis.x(2f64.powi(octave));
            let class = if octave == 0 { "one" } else { "grid" };
            push_line(&mut grid, class, (x, from), (x, to));
        }
        self.out.insert_str(grid_at, &grid);
        self.y += LINE + 12.0;
        self.text(
            "faint",
            MARGIN,
            Anchor::Start,
            "bar: median of the rounds; whisker: least to most; diamond: the aim; green is better than nginx, orange worse",
        );
        self.y += LINE;
    }

    fn bar(&mut self, bar: &Bar, axis: &RatioAxis) {
        let Spread { low, median, high } = bar.spread;
        let name =
            if bar.more_is_better { format!("{} (more is better)", bar.name) } else { bar.name.clone() };
        self.text("", PLOT.0 - 12.0, Anchor::End, &fitting(&name, PLOT.0 - 12.0 - MARGIN, LETTER));
        let middle = self.y - 4.0;
        let (one, end) = (axis.x(1.0), axis.x(median));
        let is_better = (median > 1.0) == bar.more_is_better;
        let _ = writeln!(
            self.out,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\"/>",
            if is_better { "better" } else { "worse" },
            one.min(end),
            middle - BAR_HEIGHT / 2.0,
            (end - one).abs()
        );
        self.whisker((axis.x(low), middle), (axis.x(high), middle));
        if let Some(aim) = bar.aim.filter(|aim| aim.is_finite() && *aim > 0.0) {
            self.diamond(axis.x(aim), middle);
        }
        self.text(
            "",
            PLOT.1 + 14.0,
            Anchor::Start,
            &format!("{} ({} – {})", short(median), short(low), short(high)),
        );
    }

    fn diamond(&mut self, x: f64, y: f64) {
        let _ = writeln!(
            self.out,
            "<polygon class=\"aim\" points=\"{:.1},{y:.1} {x:.1},{:.1} {:.1},{y:.1} {x:.1},{:.1}\"/>",
            x - 5.0,
            y - 5.0,
            x + 5.0,
            y + 5.0
        );
    }

    /// A line with a stop at both ends, level or upright.
    fn whisker(&mut self, from: (f64, f64), to: (f64, f64)) {
        let (dx, dy) = if from.1 == to.1 { (0.0, 4.0) } else { (4.0, 0.0) };
        push_line(&mut self.out, "whisker", from, to);
        for (x, y) in [from, to] {
            push_line(&mut self.out, "whisker", (x - dx, y - dy), (x + dx, y + dy));
        }
    }

    fn curves(&mut self, title: &str, curves: &[(&str, Vec<(f64, Spread)>)]) {
        self.y += LINE;
        self.text("group", MARGIN, Anchor::Start, &fitting(title, WIDTH - 2.0 * MARGIN, LETTER + 0.5));
        let points = || curves.iter().flat_map(|(_, points)| points);
        let plane = Plane {
            top: self.y + LINE,
            bottom: self.y + LINE + CURVES_HEIGHT,
            clients_max: points().map(|(clients, _)| *clients).fold(10.0, f64::max),
            step: round_step(points().map(|(_, spread)| spread.high).fold(0.0, f64::max) / 4.0),
        };
        self.plane(&plane, points().map(|(clients, _)| *clients));
        for (index, (who, points)) in curves.iter().enumerate() {
            self.curve(index.min(1), who, points, &plane);
        }
        self.y = plane.bottom + LINE;
    }

    fn plane(&mut self, plane: &Plane, clients: impl Iterator<Item = f64>) {
        for index in 0..=Plane::STEPS {
            let value = f64::from(index) * plane.step;
            let y = plane.y(value);
            push_line(&mut self.out, "grid", (Plane::LEFT, y), (PLOT.1, y));
            self.y = y + 4.0;
            self.text("faint", Plane::LEFT - 10.0, Anchor::End, &short(value));
        }
        self.y = plane.bottom + LINE;
        let mut labels: Vec<f64> = clients.collect();
        labels.sort_unstable_by(f64::total_cmp);
        labels.dedup();
        for clients in labels {
            self.text("faint", plane.x(clients), Anchor::Middle, &clients.to_string());
        }
        self.text("faint", PLOT.1 + 30.0, Anchor::Start, "clients");
    }

    fn curve(&mut self, index: usize, who: &str, points: &[(f64, Spread)], plane: &Plane) {
        let path: Vec<String> = points
            .iter()
            .map(|(clients, spread)| format!("{:.1},{:.1}", plane.x(*clients), plane.y(spread.median)))
            .collect();
        for (clients, spread) in points {
            let x = plane.x(*clients);
            self.whisker((x, plane.y(spread.high)), (x, plane.y(spread.low)));
        }
        let _ = writeln!(self.out, "<polyline class=\"line{index}\" points=\"{}\"/>", path.join(" "));
        for (clients, spread) in points {
            let (x, y) = (plane.x(*clients), plane.y(spread.median));
            let _ =
                writeln!(self.out, "<circle class=\"dot{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
        }
        if let Some((clients, last)) = points.last() {
            let y = plane.y(last.median);
            // The names of two lines that end at the same height must not overlap.
            self.y = if index == 0 { y + 10.0 } else { y - 2.0 };
            let name = fitting(who, WIDTH - MARGIN - plane.x(*clients) - 14.0, LETTER);
            self.text("", plane.x(*clients) + 14.0, Anchor::Start, &name);
        }
    }

    fn text(&mut self, class: &str, x: f64, anchor: Anchor, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.out,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            self.y,
            escaped(text)
        );
    }
}

/// Ratios from 1/2^octaves to 2^octaves, so that half and double are equally far from 1.
struct RatioAxis {
    octaves: i32,
}

impl RatioAxis {
    fn over(bars: &[&Bar]) -> RatioAxis {
        let ratios = bars.iter().flat_map(|bar| [bar.spread.low, bar.spread.high, bar.aim.unwrap_or(1.0)]);
        let farthest =
            ratios.filter(|ratio| *ratio > 0.0).map(|ratio| ratio.log2().abs()).fold(0.0, f64::max);
        RatioAxis { octaves: (farthest.ceil().min(f64::from(OCTAVES.1)) as i32).max(OCTAVES.0) }
    }

    fn x(&self, ratio: f64) -> f64 {
        let reach = f64::from(self.octaves);
        let share = (ratio.log2().clamp(-reach, reach) + reach) / (2.0 * reach);
        PLOT.0 + share * (PLOT.1 - PLOT.0)
    }
}

/// Clients to the right, by their logarithm; the figure upwards, from 0.
struct Plane {
    top: f64,
    bottom: f64,
    clients_max: f64,
    /// Distance between two lines of the grid.
    step: f64,
}

impl Plane {
    const LEFT: f64 = 80.0;
    const STEPS: u8 = 4;

    fn x(&self, clients: f64) -> f64 {
        Plane::LEFT + clients.log10() / self.clients_max.log10() * (PLOT.1 - Plane::LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.step / f64::from(Plane::STEPS)).clamp(0.0, 1.0);
        self.bottom - share * (self.bottom - self.top)
    }
}

fn push_line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// The smallest step of 1, 2, 2.5 or 5 times a power of ten that is at least `least`.
pub fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// Three digits at most where they fit.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{value:.0e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 || size == 0.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// The beginning of `text` that fits into `room`; each letter is `letter` wide.
fn fitting(text: &str, room: f64, letter: f64) -> String {
    let most = (room / letter) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no place for these, not even escaped.
            char if char.is_control() => out.push(' '),
            char => out.push(char),
        }
    }
    out
}
