//! The table for people and the JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::chart::{Bar, Chart, Curves, Spread};
use super::plan::{Bound, Bounds};

/// Share of the machine in other hands from which on a run is called noisy, in percent.
const NOISY_PERCENT: f64 = 5.0;

/// The contender that serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contender {
    /// No proxy: the load goes to the upstream.
    Direct,
    Nginx,
    AiProxy,
}

/// One figure, a value per round for each contender.
pub struct Row {
    /// Key of the measurement it comes from.
    key: &'static str,
    title: &'static str,
    name: &'static str,
    unit: &'static str,
    bounds: Bounds,
    /// Clients that it was measured with, where it is one point of a curve.
    clients: Option<f64>,
    direct: Vec<f64>,
    nginx: Vec<f64>,
    ai_proxy: Vec<f64>,
}

/// All figures of a run.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// What the reader must know to trust or distrust the figures.
    pub notes: Vec<String>,
    /// Responses and measurements that failed.
    pub errors: u64,
    /// Per load run: share of the machine that processes other than ours took, in percent.
    pub foreign_percent: Vec<f64>,
    /// (what, which)
    pub machine: Vec<(&'static str, String)>,
}

impl Row {
    pub fn new(
        key: &'static str,
        title: &'static str,
        name: &'static str,
        unit: &'static str,
        bounds: Bounds,
    ) -> Row {
        Row { key, title, name, unit, bounds, clients: None, direct: vec![], nginx: vec![], ai_proxy: vec![] }
    }

    /// Makes the row a point of a curve over the number of clients.
    pub fn at(self, clients: u64) -> Row {
        Row { clients: Some(clients as f64), ..self }
    }

    pub fn push(&mut self, contender: Contender, value: f64) {
        match contender {
            Contender::Direct => self.direct.push(value),
            Contender::Nginx => self.nginx.push(value),
            Contender::AiProxy => self.ai_proxy.push(value),
        }
    }

    /// ai-proxy over nginx, per round, sorted.
    fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.ai_proxy.iter().zip(&self.nginx).map(|(a, n)| a / n).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios
    }

    /// Whether the median keeps `bound`.
    fn keeps(&self, bound: Bound) -> bool {
        match bound {
            Bound::RatioAtMost(most) => median(&self.ratios()) <= most,
            Bound::RatioAtLeast(least) => median(&self.ratios()) >= least,
            Bound::AtMost(most) => median(&self.ai_proxy) <= most,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.bounds {
            None => "",
            Some((_, dream)) if self.keeps(dream) => "dream",
            Some((aim, _)) if self.keeps(aim) => "yes",
            Some(_) => "NO",
        }
    }

    /// Least, median and most ratio of the rounds.
    fn spread(&self) -> String {
        let ratios = self.ratios();
        match ratios.first().zip(ratios.last()) {
            // The time added to direct may be close to zero; a ratio of two such times is noise.
            Some((least, most)) if least.is_finite() && most.is_finite() && !self.is_difference() => {
                format!("{least:.2} / {:.2} / {most:.2}", median(&ratios))
            }
            _ => String::from("-"),
        }
    }

    fn line(&self) -> String {
        let ratio = self.spread();
        let (aim, dream) = match self.bounds {
            Some((aim, dream)) => (bound_text(aim), bound_text(dream)),
            None => Default::default(),
        };
        format!(
            "  {:<30} {:>4} {:>10} {:>10} {:>10}   {ratio:<20} {aim:>8} {dream:>8}  {}",
            self.name,
            self.unit,
            number(median(&self.direct)),
            number(median(&self.nginx)),
            number(median(&self.ai_proxy)),
            self.verdict()
        )
        .trim_end()
        .to_string()
    }

    /// As a row of the table in Markdown.
    fn markdown(&self) -> String {
        let bound = |bound: Option<Bound>| bound.map(bound_text).unwrap_or_default();
        format!(
            "| {}, {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.name,
            self.unit.replace("us", "µs"),
            number(median(&self.direct)),
            number(median(&self.nginx)),
            number(median(&self.ai_proxy)),
            self.spread(),
            bound(self.bounds.map(|(aim, _)| aim)),
            bound(self.bounds.map(|(_, dream)| dream)),
            self.verdict()
        )
    }

    fn is_difference(&self) -> bool {
        self.name.starts_with("added ")
    }

    /// The aim as a ratio to nginx, also where it is a bound of the figure itself.
    fn aimed_ratio(&self) -> Option<f64> {
        match self.bounds?.0 {
            Bound::RatioAtMost(ratio) | Bound::RatioAtLeast(ratio) => Some(ratio),
            Bound::AtMost(most) => Some(most / median(&self.nginx)),
        }
    }

    /// As a bar of the chart, if there is an aim and a ratio to it.
    fn bar(&self) -> Option<Bar> {
        let (aim, _) = self.bounds.filter(|_| !self.is_difference())?;
        let ratios = self.ratios();
        Some(Bar {
            group: self.title.to_owned(),
            name: self.name.to_owned(),
            spread: Spread::of(&ratios, median(&ratios))?,
            aim: self.aimed_ratio(),
            more_is_better: matches!(aim, Bound::RatioAtLeast(_)),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "measurement": self.key, "title": self.title, "figure": self.name, "unit": self.unit,
            "clients": self.clients,
            "direct": self.direct, "nginx": self.nginx, "ai_proxy": self.ai_proxy,
            "ratios": self.ratios(), "ratio_median": finite(median(&self.ratios())),
            "aim": self.bounds.map(|(aim, _)| bound_text(aim)),
            "dream": self.bounds.map(|(_, dream)| bound_text(dream)),
            "verdict": self.verdict(),
        })
    }
}

impl Report {
    /// A measurement that fails must not discard the finished ones.
    pub fn keep_error(&mut self, title: &str, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.errors += 1;
            self.notes.push(format!("FAILED: {title}: {error}"));
        }
    }

    /// What was measured, and on what.
    pub fn head(&self) -> String {
        let lines = self.machine.iter().map(|(what, which)| format!("{what:<12} {which}\n"));
        lines.collect()
    }

    /// Notes the share of the machine that other processes took.
    pub fn note_foreign(&mut self) {
        let foreign = median(&self.foreign_percent);
        if foreign.is_finite() {
            let worst = self.foreign_percent.iter().copied().fold(0.0, f64::max);
            let word = if worst > NOISY_PERCENT { "NOISY, repeat when the machine is quiet: " } else { "" };
            self.notes.push(format!(
                "{word}other processes and the kernel's own took {foreign:.0}% of the machine (worst run {worst:.0}%)"
            ));
        }
    }

    /// Responses that failed make the run fail.
    pub fn verdict(&self) -> std::io::Result<()> {
        match self.errors {
            0 => Ok(()),
            errors => Err(std::io::Error::other(format!("{errors} failures, see the notes"))),
        }
    }

    pub fn text(&self) -> String {
        let mut out = self.head();
        let _ = writeln!(
            out,
            "\n  {:<30} {:>4} {:>10} {:>10} {:>10}   {:<20} {:>8} {:>8}  met",
            "medians", "", "direct", "nginx", "ai-proxy", "ratio min/med/max", "aim", "dream"
        );
        let mut title = "";
        for row in &self.rows {
            if row.title != title {
                title = row.title;
                let _ = writeln!(out, "{title}");
            }
            let _ = writeln!(out, "{}", row.line());
        }
        let _ = writeln!(out, "\n\"added\" is on top of direct, whose own figure stands in its column");
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }

    /// The table for a page.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| medians | direct | nginx | ai-proxy | ratio, min / median / max | aim | dream | met |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        let mut title = "";
        for row in &self.rows {
            if row.title != title {
                title = row.title;
                let _ = writeln!(out, "| **{title}** | | | | | | | |");
            }
            out.push_str(&row.markdown());
        }
        out
    }

    pub fn chart(&self) -> Chart {
        let which = |what| {
            let found = self.machine.iter().find(|(each, _)| *each == what);
            found.map_or("", |(_, which)| which.as_str())
        };
        Chart {
            title: format!("{} beside {}", which("ai-proxy"), which("nginx").replace('/', " ")),
            lines: vec![
                format!("{}; rounds: {}, nginx and ai-proxy in turn", which("machine"), which("rounds")),
                String::from(
                    "ratio of ai-proxy to nginx, which is 1, in the same round: the further left the better, if not said otherwise",
                ),
            ],
            bars: self.rows.iter().filter_map(Row::bar).collect(),
            curves: self.curves(),
        }
    }

    /// The curves of the rows that are points of one; a run has at most one such measurement.
    fn curves(&self) -> Curves {
        let rows: Vec<(&Row, f64)> = self.rows.iter().filter_map(|row| Some((row, row.clients?))).collect();
        let Some((first, _)) = rows.first() else {
            return Curves::default();
        };
        let line = |values: fn(&Row) -> &Vec<f64>| {
            let points = rows.iter().filter_map(|(row, clients)| {
                let mut sorted = values(row).clone();
                sorted.sort_unstable_by(f64::total_cmp);
                Some((*clients, Spread::of(&sorted, median(&sorted))?))
            });
            points.collect()
        };
        Curves {
            title: format!("CPU per request, {}: {}", first.unit.replace("us", "µs"), first.title),
            lines: vec![
                (String::from("nginx"), line(|row| &row.nginx)),
                (String::from("ai-proxy"), line(|row| &row.ai_proxy)),
            ],
        }
    }

    pub fn machine_json(&self) -> Value {
        self.machine.iter().map(|(what, which)| (what.to_string(), json!(which))).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine_json(),
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "notes": self.notes,
            "errors": self.errors,
            "foreign_cpu_percent": self.foreign_percent,
        })
    }
}

/// The middle of `values`; NaN where there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => String::new(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn bound_text(bound: Bound) -> String {
    match bound {
        Bound::RatioAtMost(most) => format!("{most} x"),
        Bound::RatioAtLeast(least) => format!(">{least} x"),
        Bound::AtMost(most) => format!("{most}"),
    }
}
