//! The benchmark's parts that need neither nginx nor time: the report and its chart.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use regex::Regex;

use chart::{Bar, Chart, Curves, PLOT, Spread, TITLE_LETTER, WIDTH, round_step};
use plan::Bound;
use procfs::{Memory, Processes};
use report::{Contender, Report, Row};

#[path = "../../benches/proxy/chart.rs"]
mod chart;
#[allow(dead_code, reason = "the benchmark alone runs the scenarios")]
#[path = "../../benches/proxy/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the benchmark alone reads them all")]
#[path = "../../benches/proxy/procfs.rs"]
mod procfs;
#[allow(dead_code, reason = "the benchmark alone prints the report")]
#[path = "../../benches/proxy/report.rs"]
mod report;
#[allow(dead_code, reason = "the benchmark alone sends requests")]
#[path = "../../benches/proxy/request.rs"]
mod request;

fn spread(low: f64, median: f64, high: f64) -> Spread {
    Spread { low, median, high }
}

fn bar(name: &str, spread: Spread, aim: Option<f64>) -> Bar {
    Bar { group: "a group".to_owned(), name: name.to_owned(), spread, aim, more_is_better: false }
}

/// Everything that is hard on a chart: extremes, no numbers, long texts, XML's special characters.
fn hostile() -> Chart {
    let long = "a long <name> & \"more\" ".repeat(20);
    let mut bars = vec![
        bar("huge", spread(1e-12, 5.0, 1e12), Some(1e9)),
        bar("tiny", spread(0.0, 1e-9, 1e-3), Some(-1.0)),
        bar(&long, spread(0.9, 1.5, 70.0), Some(f64::NAN)),
        bar("nothing", spread(f64::NAN, 1.0, f64::INFINITY), None),
    ];
    bars[1].group = long.clone();
    bars[1].more_is_better = true;
    let points = vec![
        (1.0, spread(10.0, 1e5, 2e9)),
        (1000.0, spread(0.0, 0.0, 0.0)),
        (64.0, spread(f64::NAN, 1.0, 2.0)),
    ];
    let curves =
        Curves { title: long.clone(), lines: vec![(long.clone(), points.clone()), ("b".to_owned(), points)] };
    Chart { title: long.clone(), lines: vec![long, "\u{0}\u{1b}".to_owned()], bars, curves }
}

fn plain() -> Chart {
    Chart {
        title: "a title".to_owned(),
        bars: vec![
            bar("half", spread(0.4, 0.5, 0.6), None),
            bar("double", spread(1.8, 2.0, 2.2), Some(1.5)),
            bar("none", spread(f64::NAN, f64::NAN, f64::NAN), Some(1.5)),
        ],
        ..Chart::default()
    }
}

fn numbers(text: &str) -> Vec<f64> {
    let numbers = text.split([' ', ',']).filter(|word| !word.is_empty());
    numbers.map(|word| word.parse().expect("a number")).collect()
}

/// Every value of an attribute, over all elements that have it.
fn attributes(svg: &str, name: &str) -> Vec<String> {
    let pattern = Regex::new(&format!(" {name}=\"([^\"]*)\"")).expect("regex");
    pattern.captures_iter(svg).map(|found| found[1].to_owned()).collect()
}

fn view_box(svg: &str) -> (f64, f64) {
    let found = numbers(&attributes(svg, "viewBox")[0]);
    (found[2], found[3])
}

#[test]
fn every_mark_lies_inside_the_view_box() {
    for chart in [hostile(), plain()] {
        let svg = chart.svg();
        let (width, height) = view_box(&svg);
        let inside = |names: &[&str], most: f64| {
            for value in names.iter().flat_map(|name| attributes(&svg, name)) {
                let value: f64 = value.parse().expect("a number");
                assert!((0.0..=most).contains(&value), "{names:?}: {value} of {most}");
            }
        };
        inside(&["x", "x1", "x2", "cx"], width);
        inside(&["y", "y1", "y2", "cy"], height);
        for (x, w) in attributes(&svg, "x").iter().zip(attributes(&svg, "width")) {
            assert!(x.parse::<f64>().expect("x") + w.parse::<f64>().expect("width") <= width);
        }
        for points in attributes(&svg, "points") {
            for pair in numbers(&points).chunks(2) {
                assert!((0.0..=width).contains(&pair[0]) && (0.0..=height).contains(&pair[1]), "{points}");
            }
        }
    }
}

#[test]
fn every_text_has_room() {
    let text = Regex::new("<text class=\"(.*?)\" x=\"(.*?)\" y=\".*?\" text-anchor=\"(.*?)\">(.*?)</text>")
        .expect("regex");
    let svg = hostile().svg();
    let mut count = 0;
    for found in text.captures_iter(&svg) {
        let letter = if &found[1] == "title" { TITLE_LETTER } else { 6.2 };
        let content =
            found[4].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&quot;", "\"");
        let length = content.chars().count() as f64 * letter;
        let x: f64 = found[2].parse().expect("x");
        let (from, to) = match &found[3] {
            "start" => (x, x + length),
            "middle" => (x - length / 2.0, x + length / 2.0),
            _ => (x - length, x),
        };
        assert!(from >= 0.0 && to <= WIDTH, "{from} to {to}: {content}");
        count += 1;
    }
    assert!(count > 20, "{count} texts");
}

#[test]
fn texts_are_escaped() {
    let svg = hostile().svg();
    assert!(svg.contains("a long &lt;name&gt; &amp; &quot;more&quot;"));
    assert!(!svg.contains("<name>") && !svg.contains("& "));
    assert!(svg.chars().all(|char| char == '\n' || !char.is_control()));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_bar_begins_at_nginx_and_ends_at_its_median() {
    let svg = plain().svg();
    let bars =
        Regex::new("<rect class=\"(better|worse)\" x=\"(.*?)\" y=\".*?\" width=\"(.*?)\"").expect("regex");
    let seen: Vec<(String, f64, f64)> = bars
        .captures_iter(&svg)
        .map(|found| (found[1].to_owned(), found[2].parse().expect("x"), found[3].parse().expect("width")))
        .collect();
    // Up to 2.2 the axis goes from 1/4 to 4: half and double are a quarter of it from its middle.
    let (middle, quarter) = ((PLOT.0 + PLOT.1) / 2.0, (PLOT.1 - PLOT.0) / 4.0);
    assert_eq!(
        seen,
        [("better".to_owned(), middle - quarter, quarter), ("worse".to_owned(), middle, quarter)]
    );
    assert_eq!(svg.matches("<polygon class=\"aim\"").count(), 1);
    assert_eq!(svg.matches("<line class=\"one\"").count(), 1);
}

#[test]
fn both_schemes_have_their_colours() {
    let svg = plain().svg();
    let (light, dark) = svg.split_once("prefers-color-scheme: dark").expect("both schemes");
    for class in ["text", ".ground", ".faint", ".grid", ".better", ".worse", ".aim", ".line1"] {
        assert!(light.contains(class) && dark.contains(class), "{class}");
    }
}

#[test]
fn steps_are_round_and_far_enough() {
    for (least, step) in [(0.0, 1.0), (0.9, 1.0), (11.0, 20.0), (23.0, 25.0), (30.0, 50.0), (70.0, 100.0)] {
        assert_eq!(round_step(least), step, "{least}");
    }
}

/// A row of two rounds, ai-proxy's first and nginx's behind it.
fn row(name: &'static str, bounds: plan::Bounds, ai_proxy: [f64; 2], nginx: [f64; 2]) -> Row {
    let mut row = Row::new("key", "a title", name, "us", bounds);
    for (a, n) in ai_proxy.into_iter().zip(nginx) {
        row.push(Contender::AiProxy, a);
        row.push(Contender::Nginx, n);
    }
    row
}

#[test]
fn the_chart_has_what_has_an_aim_and_a_ratio() {
    let at_most = |aim, dream| Some((Bound::AtMost(aim), Bound::AtMost(dream)));
    let rows = vec![
        row("cpu", Some((Bound::RatioAtMost(1.3), Bound::RatioAtMost(1.0))), [30.0, 44.0], [20.0, 22.0]),
        row("finished", Some((Bound::RatioAtLeast(0.8), Bound::RatioAtLeast(1.0))), [5.0, 5.0], [10.0, 10.0]),
        row("RSS", at_most(6.0, 3.0), [4.0, 4.0], [8.0, 8.0]),
        row("added delay", at_most(0.1, 0.05), [0.1, 0.1], [0.2, 0.2]),
        row("latency", None, [1.0, 1.0], [1.0, 1.0]),
    ];
    let chart = Report { rows, ..Report::default() }.chart();
    let seen: Vec<_> = chart
        .bars
        .iter()
        .map(|bar| {
            (
                bar.name.as_str(),
                bar.spread.low,
                bar.spread.median,
                bar.spread.high,
                bar.aim,
                bar.more_is_better,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("cpu", 1.5, 1.75, 2.0, Some(1.3), false),
            ("finished", 0.5, 0.5, 0.5, Some(0.8), true),
            // An aim of its own, 6, as nginx's 8 makes it a ratio.
            ("RSS", 0.5, 0.5, 0.5, Some(0.75), false),
        ]
    );
    assert!(chart.curves.lines.is_empty() && !chart.is_empty());
}

#[test]
fn the_table_for_a_page_has_every_row_under_its_measurement() {
    let rows = vec![
        row("cpu", Some((Bound::RatioAtMost(1.3), Bound::RatioAtMost(1.0))), [30.0, 44.0], [20.0, 22.0]),
        row("added delay", None, [0.1, 0.1], [0.2, 0.2]),
    ];
    let table = Report { rows, ..Report::default() }.markdown();
    let lines: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "| **a title** | | | | | | | |",
            "| cpu, µs |  | 21.0 | 37.0 | 1.50 / 1.75 / 2.00 | 1.3 x | 1 x | NO |",
            "| added delay, µs |  | 0.200 | 0.100 | - |  |  |  |",
        ]
    );
    let cells = |line: &str| line.matches('|').count();
    assert!(table.lines().all(|line| cells(line) == 9), "{table}");
}

#[test]
fn points_over_clients_become_a_line_each() {
    let rows = vec![
        row("at 1", None, [50.0, 40.0], [30.0, 30.0]).at(1),
        row("at 1,000", None, [60.0, 60.0], [10.0, 20.0]).at(1_000),
    ];
    let chart = Report { rows, ..Report::default() }.chart();
    assert!(chart.bars.is_empty() && !chart.is_empty());
    let seen: Vec<_> = chart
        .curves
        .lines
        .iter()
        .map(|(who, points)| {
            (
                who.as_str(),
                points.iter().map(|(clients, at)| (*clients, at.low, at.median, at.high)).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("nginx", vec![(1.0, 30.0, 30.0, 30.0), (1000.0, 10.0, 15.0, 20.0)]),
            ("ai-proxy", vec![(1.0, 40.0, 45.0, 50.0), (1000.0, 60.0, 60.0, 60.0)]),
        ]
    );
    let svg = chart.svg();
    assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 4));
}

#[test]
fn a_tree_of_processes_is_all_that_descend_from_it() {
    let parents = [(1, 0), (2, 1), (10, 1), (5, 10), (11, 10), (12, 11), (13, 2)];
    assert_eq!(procfs::descendants(10, &parents), [10, 5, 11, 12]);
    assert_eq!(procfs::descendants(13, &parents), [13]);
}

#[test]
fn what_a_child_holds_counts_for_its_parent() {
    // The shell must not `exec` its only command: hence the second one.
    let mut shell = Command::new("sh").args(["-c", "sleep 60; true"]).process_group(0).spawn().expect("sh");
    let pid = shell.id();
    let rss = |processes| Memory::now(processes).map_or(0, |memory| memory.rss_kib);
    let seen = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        rss(Processes::Tree(pid)) > rss(Processes::One(pid)) + 100
    });
    rustix::process::kill_process_group(
        rustix::process::Pid::from_child(&shell),
        rustix::process::Signal::KILL,
    )
    .expect("a group");
    shell.wait().expect("its end");
    assert!(seen, "the tree holds no more than the shell alone");
}
