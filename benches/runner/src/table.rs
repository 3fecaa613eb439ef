//! Tables in Markdown, for the terminal and for the documents.

use std::fmt::Write;

use crate::modes::Mode;
use crate::results::{CPU, P50, P99, RATE, Results, Rounds, SWITCHES, Spread};
use crate::servers::EARLIER;

pub(crate) fn of(mode: &Mode, results: &Results) -> String {
    let (rate_unit, cpu_unit) = mode.units();
    let counted = results.servers.iter().any(|server| server.counts.is_some());
    let mut head = vec![
        "server".to_owned(),
        "cpu ×".to_owned(),
        "min..max".to_owned(),
        "rate ×".to_owned(),
        format!("cpu, {cpu_unit}"),
        format!("rate, {rate_unit}"),
    ];
    let bare = mode.is_bulk() || mode.load.is_empty();
    if !bare {
        head.extend(["p50, µs", "p99, µs", "waits/op"].map(str::to_owned));
    }
    if counted {
        head.extend(["calls/op", "switches/op"].map(str::to_owned));
    }
    if mode.is_idle() {
        head.extend(["user B", "page table B", "kernel stack B", "slab B", "threads"].map(str::to_owned));
    }
    if !mode.load.is_empty() {
        head.push("quiet".to_owned());
    }
    let mut rows = vec![head];
    for server in results.ranked() {
        let mut row = ratios(results, server);
        row.push(number(server.median(CPU)));
        row.push(number(server.median(RATE)));
        if !bare {
            row.extend(
                [P50, P99]
                    .map(|value| server.median(value).map_or("".into(), |value| format!("{value:.0}"))),
            );
            row.push(server.median(SWITCHES).map_or("".into(), |value| format!("{value:.2}")));
        }
        if counted {
            let counts = server.counts.as_ref();
            row.push(counts.map_or("".into(), |counts| format!("{:.2}", counts.calls)));
            row.push(counts.map_or("".into(), |counts| format!("{:.2}", counts.switches)));
        }
        if mode.is_idle() {
            row.extend(idle(server));
        }
        if !mode.load.is_empty() {
            row.push(format!("{}/{}", server.quiet(), server.reports.iter().flatten().count()));
        }
        rows.push(row);
    }
    let mut text = render(&rows);
    for server in &results.servers {
        if let Some(failure) = &server.failure {
            let failed = server.reports.iter().filter(|report| report.is_none()).count();
            let _ = writeln!(text, "\n`{}` failed in {failed} rounds: {failure}", server.name);
        }
    }
    if !results.skipped.is_empty() {
        let _ = writeln!(
            text,
            "\nSkipped, because they are not installed or not built: {}.",
            results.skipped.join(", ")
        );
    }
    text
}

/// Describes how the table was measured.
pub(crate) fn legend(results: &Results) -> String {
    let reference = results.servers.first().map_or("", |server| &server.name);
    let place = match (results.mode.as_str(), results.pinned) {
        ("recv", _) => "CPU time",
        (_, true) => "server on one CPU, load on another",
        (_, false) => "not pinned",
    };
    format!(
        "{} rounds of {} s, interleaved; {place}.\nRatios are medians of each round's ratio to `{reference}`.",
        results.rounds, results.seconds
    )
}

/// Returns a table of our servers, each compared with its earlier build.
pub(crate) fn beside_earlier(results: &Results) -> String {
    let head = ["server", "cpu, now / earlier", "min..max", "rate, now / earlier", "quiet"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for now in &results.servers {
        let name = format!("{}{EARLIER}", now.name);
        let Some(earlier) = results.servers.iter().find(|server| server.name == name) else { continue };
        let cpu = now.ratio(earlier, CPU);
        let quiet =
            |server: &Rounds| format!("{}/{}", server.quiet(), server.reports.iter().flatten().count());
        rows.push(vec![
            now.name.clone(),
            cpu.map_or("".into(), |cpu| format!("{:.3}", cpu.median)),
            cpu.map_or("".into(), |Spread { min, max, .. }| format!("{min:.2}..{max:.2}")),
            now.ratio(earlier, RATE).map_or("".into(), |rate| format!("{:.3}", rate.median)),
            format!("{}, {}", quiet(now), quiet(earlier)),
        ]);
        for server in [now, earlier] {
            if let Some(failure) = &server.failure {
                rows.push(vec![format!("{} failed: {failure}", server.name)]);
            }
        }
    }
    format!("{} rounds of {} s, interleaved.\n\n{}", results.rounds, results.seconds, render(&rows))
}

fn ratios(results: &Results, server: &Rounds) -> Vec<String> {
    let to_reference = |value| results.reference().and_then(|reference| server.ratio(reference, value));
    let cpu = to_reference(CPU);
    vec![
        if server.ours { format!("**{}**", server.name) } else { server.name.clone() },
        cpu.map_or("".into(), |cpu| format!("{:.2}", cpu.median)),
        cpu.map_or("".into(), |Spread { min, max, .. }| format!("{min:.2}..{max:.2}")),
        to_reference(RATE).map_or("".into(), |rate| format!("{:.2}", rate.median)),
    ]
}

fn idle(server: &Rounds) -> Vec<String> {
    let Some(idle) = server.reports.iter().flatten().find_map(|report| report.idle.as_ref()) else {
        return vec![String::new(); 5];
    };
    let bytes = [idle.user, idle.page_tables, idle.kernel_stacks, idle.slab];
    let mut cells: Vec<_> = bytes.iter().map(|bytes| format!("{bytes:.0}")).collect();
    cells.push(idle.threads.to_string());
    cells
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &'_ [String], column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let pad = width - cell(row, column).chars().count();
            let _ = write!(text, "| {}{} ", cell(row, column), " ".repeat(pad));
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "| {} ", "-".repeat(*width));
            }
            text.push_str("|\n");
        }
    }
    text
}
