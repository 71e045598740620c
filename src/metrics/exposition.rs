//! The text form: Prometheus text exposition format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::series::Series;
use super::{BUCKETS, Family, Histogram, Kind, OTHER, Reading};

// A write into a string cannot fail; each `let _` below is one.

/// The lines above a family's samples.
pub fn head(text: &mut String, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", family.name, family.help);
}

/// A value from elsewhere.
pub fn reading(text: &mut String, family: &Family, reading: &Reading<'_>) {
    sample(text, family, "", reading.labels, None, &reading.value.to_string());
}

pub fn counters(text: &mut String, family: &Family, series: &Series<AtomicU64>) {
    let rest = series.rest();
    for (labels, value) in series.all() {
        sample(text, family, "", labels, None, &read(value).to_string());
    }
    if read(rest) > 0 {
        sample(text, family, "", &others(family), None, &read(rest).to_string());
    }
}

pub fn histograms(text: &mut String, family: &Family, series: &Series<Histogram>) {
    let rest = series.rest();
    for (labels, histogram) in series.all() {
        histogram_samples(text, family, labels, histogram);
    }
    if rest.counts.iter().any(|count| read(count) > 0) {
        histogram_samples(text, family, &others(family), rest);
    }
}

fn histogram_samples<L: AsRef<str>>(text: &mut String, family: &Family, labels: &[L], histogram: &Histogram) {
    let mut total = 0;
    let bounds = BUCKETS.iter().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&histogram.counts) {
        total += read(count);
        sample(text, family, "_bucket", labels, Some(&bound), &total.to_string());
    }
    let micros = read(&histogram.micros);
    let sum = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    sample(text, family, "_sum", labels, None, &sum);
    sample(text, family, "_count", labels, None, &total.to_string());
}

fn read(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn others(family: &Family) -> Vec<&'static str> {
    vec![OTHER; family.labels.len()]
}

fn sample<L: AsRef<str>>(
    text: &mut String,
    family: &Family,
    suffix: &str,
    labels: &[L],
    bound: Option<&str>,
    value: &str,
) {
    let _ = write!(text, "{}{suffix}", family.name);
    let named = family.labels.iter().copied().zip(labels.iter().map(AsRef::as_ref));
    let mut lead = '{';
    for (name, label) in named.chain(bound.map(|bound| ("le", bound))) {
        let _ = write!(text, "{lead}{name}=\"");
        push_escaped(text, label);
        text.push('"');
        lead = ',';
    }
    let _ = writeln!(text, "{} {value}", if lead == ',' { "}" } else { "" });
}

fn push_escaped(text: &mut String, label: &str) {
    for character in label.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}
