//! `--map`: connections x payload x pattern, and who wins where.

use std::fmt::Write as _;
use std::time::Duration;

use echo::load::Load;
use echo::measure::{Cpus, Sample, in_turn, ping_pong};
use echo::spec::Spec;
use kit::stats::{Ratio, Verdict};
use kit::{Predict, Session};

use crate::options::{Options, uring};

/// One square of the map: the ratio of CPU time, io_uring to epoll.
struct Square {
    connections: usize,
    payload: usize,
    ratio: Option<Ratio>,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let (connections, payloads, rounds, each): (Vec<usize>, Vec<usize>, usize, u64) = if s.quick() {
        (vec![1, 50], vec![64, 4096], 3, 20)
    } else {
        (vec![1, 10, 50, 200, 500], vec![64, 512, 4096, 16_384, 65_536], 9, 40)
    };
    let patterns = [("Ping-pong: one request under way", 1), ("Streaming: 16 requests under way", 16)];
    let ours = o.spec(Spec::IO_URING);
    let cpus = Cpus::take()?;
    let total = patterns.len() * connections.len() * payloads.len();
    let progress = s.progress(total as u64, "squares");
    let mut counts = [0; 3];
    for (n, (title, depth)) in patterns.iter().enumerate() {
        s.step_at(*title, echo::measure::HERE);
        if n == 0 {
            s.predict(Predict::new(
                "where, if anywhere, can io_uring save most?",
                ["one connection, small requests", "many connections, small requests", "large requests"],
                1,
                "What it saves is a part of each system call, so it takes many requests that can share one; \
                 and large requests cost copying, which both must do.",
            ));
            if !uring(s) {
                s.so("without io_uring there is nobody to compare with", "--overload");
                return Ok(());
            }
        }
        let mut squares = Vec::new();
        for &payload in &payloads {
            for &n in &connections {
                let load = Load { depth: *depth, ..ping_pong(n, payload) };
                let mut pairs = vec![o.pair(ours, load, &cpus)?, o.pair(Spec::EPOLL, load, &cpus)?];
                let samples = in_turn(&mut pairs, rounds, Duration::from_millis(each), || {})?;
                let cpu = |samples: &[Sample]| samples.iter().map(Sample::cpu_us).collect::<Vec<f64>>();
                let ratio = Ratio::paired(&cpu(&samples[0]), &cpu(&samples[1]));
                if let Some(r) = &ratio {
                    s.metric(&format!("map_d{depth}_c{n}_b{payload}_cpu_ratio"), "1", r.ratio);
                    counts[r.verdict() as usize] += 1;
                }
                squares.push(Square { connections: n, payload, ratio });
                progress.add(1);
            }
        }
        s.figure(
            "CPU time of a request: io_uring against epoll",
            text(&squares, &connections),
            svg(&squares, &connections),
        );
    }
    drop(progress);
    s.say(format!(
        "{ours} against {}; {rounds} rounds in turn a square, 95 % bootstrap interval of the paired ratio. \
         The sign = stands where the interval holds 1: no winner.",
        Spec::EPOLL
    ));
    let [less, more, same] = counts;
    s.metric("map_io_uring_wins", "1", f64::from(less));
    s.metric("map_epoll_wins", "1", f64::from(more));
    s.metric("map_no_difference", "1", f64::from(same));
    s.so(
        format!("of {total} squares io_uring wins {less}, epoll {more}, and {same} are in the noise"),
        "--knobs, --map --report map.html",
    );
    Ok(())
}

/// `-12 %` io_uring needs less, `+8 %` it needs more, `=` no difference shown.
fn label(square: &Square) -> String {
    match &square.ratio {
        None => "?".into(),
        Some(r) if r.verdict() == Verdict::NoDifference => "=".into(),
        Some(r) => format!("{:+.0} %", (r.ratio - 1.0) * 100.0),
    }
}

fn text(squares: &[Square], connections: &[usize]) -> String {
    let mut out = format!("{:>12}", "connections");
    for n in connections {
        let _ = write!(out, "{n:>12}");
    }
    for row in squares.chunks(connections.len()) {
        let _ = write!(out, "\n{:>10} B", row[0].payload);
        for square in row {
            let winner = match square.ratio.map(|r| r.verdict()) {
                Some(Verdict::Less) => " ring",
                Some(Verdict::More) => "epoll",
                _ => "",
            };
            let _ = write!(out, "{:>12}", format!("{} {winner}", label(square)).trim_end());
        }
    }
    out
}

/// Green: io_uring needs less; red: epoll does; grey: no difference shown. The label says it too.
fn svg(squares: &[Square], connections: &[usize]) -> String {
    let (w, h, left, top) = (110, 44, 110, 34);
    let rows = squares.len() / connections.len();
    let mut out = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"heat map\">",
        left + w * connections.len(),
        top + h * rows
    );
    out.push_str("<text x=\"0\" y=\"22\" class=\"soft\">connections</text>");
    for (i, n) in connections.iter().enumerate() {
        let x = left + w * i + w / 2;
        let _ = write!(out, "<text x=\"{x}\" y=\"22\" text-anchor=\"middle\" class=\"soft\">{n}</text>");
    }
    for (i, square) in squares.iter().enumerate() {
        let (column, row) = (i % connections.len(), i / connections.len());
        let (x, y) = (left + w * column, top + h * row);
        if column == 0 {
            let _ = write!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"soft\">{} B</text>",
                left - 10,
                y + h / 2 + 5,
                square.payload
            );
        }
        let strength = square.ratio.map_or(0.0, |r| ((r.ratio - 1.0).abs() * 3.0).clamp(0.15, 0.8));
        let (colour, strength) = match square.ratio.map(|r| r.verdict()) {
            Some(Verdict::Less) => ("#2a9d5c", strength),
            Some(Verdict::More) => ("#d1495b", strength),
            _ => ("#888888", 0.12),
        };
        let title = square.ratio.map_or("not measured".to_owned(), |r| r.to_string());
        let _ = write!(
            out,
            "<g><title>{} connections, {} bytes: {title}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" \
             height=\"{}\" fill=\"{colour}\" fill-opacity=\"{strength:.2}\"/><text x=\"{}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text></g>",
            square.connections,
            square.payload,
            w - 4,
            h - 4,
            x + w / 2 - 2,
            y + h / 2 + 3,
            label(square)
        );
    }
    out.push_str("</svg>");
    out
}
