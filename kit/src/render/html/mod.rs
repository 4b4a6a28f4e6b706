//! One self-contained page: inline style and SVG, no script, prints on paper.

mod charts;
mod lanes;

use std::fmt::Write as _;

use crate::event::{Hexdump, Item, Listing, Predict, Step, Table};
use crate::machine::date;
use crate::render::text::{is_control, spoken};
use crate::run::Run;
use crate::stats::figure;

/// The whole page. Nothing on it runs or is fetched: the policy in its head forbids it, also to what a
/// recording from elsewhere brings along.
pub(crate) fn html(run: &Run) -> String {
    let header = &run.header;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{lab}: {question}</title>\n<style>\n{style}</style></head>\n<body>\n\
         <h1><small>{lab}</small>{question}</h1>\n",
        lab = escape(&header.lab),
        question = escape(&header.question),
        style = include_str!("style.css"),
    );
    if header.recorded {
        page.push_str("<p class=\"recorded\">Recorded: these are another run's figures, made on the machine named here.</p>\n");
    }
    let _ = writeln!(page, "<p class=\"machine\">{}</p>", escape(&machine_line(run)));
    for step in &run.steps {
        page.push_str(&section(step));
    }
    page.push_str(&ending(run));
    let _ = writeln!(
        page,
        "<details class=\"raw\"><summary>All of it as JSON</summary><pre>{}</pre></details>\n</body></html>",
        escape(&run.to_json())
    );
    page
}

fn machine_line(run: &Run) -> String {
    let m = &run.header.machine;
    let mut parts = vec![date(run.header.at), m.line()];
    parts.extend([&m.cpu, &m.libc].into_iter().filter(|s| !s.is_empty()).cloned());
    if m.memory_mib > 0 {
        parts.push(format!("{:.0} GiB", m.memory_mib as f64 / 1024.0));
    }
    parts.push(format!("load {:.1}", m.load));
    if !m.revision.is_empty() {
        parts.push(format!("checkout {}", m.revision));
    }
    parts.join(" · ")
}

fn section(step: &Step) -> String {
    let place =
        if step.at.line == 0 { String::new() } else { format!("<code>{}</code>", escape(&step.at.short())) };
    let mut out = format!(
        "<section><h2><span class=\"n\">{}</span> <span>{}</span> {place}</h2>\n",
        step.n,
        escape(&step.title)
    );
    if let Some(predict) = &step.predict {
        out.push_str(&prediction(predict));
    }
    for item in &step.items {
        out.push_str(&shown(item));
    }
    out.push_str("</section>\n");
    out
}

fn prediction(predict: &Predict) -> String {
    let options: String = predict.options.iter().map(|o| format!("<li>{}</li>", escape(o))).collect();
    let right = predict.options.get(predict.answer).map_or("", String::as_str);
    format!(
        "<div class=\"predict\"><p>Predict: {}</p><ol>{options}</ol>\
         <details><summary>The answer</summary><p><strong>{}</strong>. {}</p></details></div>\n",
        escape(&predict.question),
        escape(right),
        escape(&predict.why)
    )
}

fn shown(item: &Item) -> String {
    match item {
        Item::Say { text } => format!("<p>{}</p>\n", marked(text)),
        Item::Measure { name, unit, summary } => {
            let spread = if summary.n > 1 {
                format!(
                    " (n {}, {}..{} 10th to 90th, max {})",
                    summary.n,
                    figure(summary.p10),
                    figure(summary.p90),
                    figure(summary.max)
                )
            } else {
                String::new()
            };
            let name = escape(&spoken(name, unit));
            format!("<p>{name} <strong>{} {}</strong>{spread}</p>\n", figure(summary.median), escape(unit))
        }
        Item::Table(table) => rows(table),
        Item::Bars(bars) => framed(&bars.title, &charts::bars(bars)),
        Item::Lines(lines) => framed(&lines.title, &charts::lines(lines)),
        Item::Lanes(drawing) => framed(&drawing.title, &lanes::lanes(drawing)),
        Item::Hexdump(dump) => framed(&dump.title, &hexdump(dump)),
        Item::Listing(listing) => framed(&listing.title, &lines(listing)),
        Item::Figure { title, text, svg } => {
            let drawing = if svg.is_empty() { format!("<pre>{}</pre>", escape(text)) } else { svg.clone() };
            framed(title, &drawing)
        }
        Item::Missing { what, why, fix } => {
            let fix = if fix.is_empty() { String::new() } else { format!("<br>Fix: {}", escape(fix)) };
            format!(
                "<div class=\"missing\"><p>Not shown here: {}<br>Because: {}{fix}</p></div>\n",
                escape(what),
                escape(why)
            )
        }
    }
}

fn framed(title: &str, inside: &str) -> String {
    let caption =
        if title.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>", escape(title)) };
    format!("<figure>{caption}{inside}</figure>\n")
}

fn rows(table: &Table) -> String {
    let class = |c: usize| if table.right.contains(&c) { " class=\"r\"" } else { "" };
    let mut out = String::from("<div class=\"scroll\"><table>");
    if table.head.iter().any(|h| !h.is_empty()) {
        let heads = table.head.iter().enumerate().map(|(c, h)| format!("<th{}>{}</th>", class(c), escape(h)));
        let _ = write!(out, "<tr>{}</tr>", heads.collect::<String>());
    }
    for (i, row) in table.rows.iter().enumerate() {
        let mark = if table.marked.contains(&i) { " class=\"mark\"" } else { "" };
        let cells = row.iter().enumerate().map(|(c, text)| format!("<td{}>{}</td>", class(c), escape(text)));
        let _ = write!(out, "<tr{mark}>{}</tr>", cells.collect::<String>());
    }
    out.push_str("</table></div>\n");
    out
}

fn lines(listing: &Listing) -> String {
    let column = listing.lines.iter().filter(|l| !l.note.is_empty()).map(|l| l.text.chars().count()).max();
    let mut out = String::from("<pre>");
    for line in &listing.lines {
        out.push_str(&escape(&line.text));
        if !line.note.is_empty() {
            let gap = column.unwrap_or(0).saturating_sub(line.text.chars().count());
            let _ = write!(out, "{:gap$}  <span class=\"note\">&lt;- {}</span>", "", escape(&line.note));
        }
        out.push('\n');
    }
    out.push_str("</pre>");
    out
}

fn hexdump(dump: &Hexdump) -> String {
    let mut out = String::from("<pre>");
    let mut notes = dump.notes.iter().peekable();
    for (i, row) in dump.bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String =
            row.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' }).collect();
        let _ = writeln!(out, "{:08x}  {hex:<48} {}", dump.base + i as u64 * 16, escape(&text));
        while let Some(note) = notes.next_if(|n| n.from < (i + 1) * 16) {
            let _ = writeln!(
                out,
                "  <span class=\"note\">+{:x}, {} byte{}: {}</span>",
                note.from,
                note.len,
                if note.len == 1 { "" } else { "s" },
                escape(&note.text)
            );
        }
    }
    out.push_str("</pre>");
    out
}

fn ending(run: &Run) -> String {
    let mut out = String::new();
    if !run.checks.is_empty() {
        out.push_str("<section><h2>Checks</h2><ul class=\"checks\">");
        for check in &run.checks {
            let class = if check.ok { "ok" } else { "failed" };
            let _ = write!(
                out,
                "<li class=\"{class}\">{} <code>{}</code></li>",
                escape(&check.detail),
                escape(&check.name)
            );
        }
        out.push_str("</ul></section>\n");
    }
    if let Some(error) = &run.ending.error {
        let _ = writeln!(out, "<p class=\"failed\">ended early: {}</p>", escape(error));
    }
    if !run.ending.so.is_empty() {
        let _ = writeln!(out, "<p class=\"so\">So: {}</p>", marked(&run.ending.so));
    }
    out
}

/// Text as HTML shows it and does not obey it.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if is_control(c) => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

fn marked(text: &str) -> String {
    let mut out = String::new();
    let parts: Vec<&str> = text.split("**").collect();
    for (i, part) in parts.iter().enumerate() {
        match i % 2 {
            1 => {
                let _ = write!(out, "<strong>{}</strong>", escape(part));
            }
            _ => out.push_str(&escape(part)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Bars, Check, Event, Header, Lanes, Lines, Place, Span};

    fn run_with(items: Vec<Item>, text: &str) -> Run {
        let mut run = Run::default();
        run.apply(&Event::Begin(Box::new(Header {
            lab: text.into(),
            question: text.into(),
            ..Header::default()
        })));
        let at = Place { file: "labs/x/src/main.rs".into(), line: 3 };
        run.apply(&Event::Step(Step { n: 1, title: text.into(), at: at.clone(), predict: None, items }));
        run.apply(&Event::Check(Check { name: "c".into(), ok: false, detail: text.into(), at }));
        run
    }

    #[test]
    fn nothing_told_becomes_markup() {
        let evil = "<script>alert(1)</script>\"'&**<b>**";
        let items = vec![
            Item::Say { text: evil.into() },
            Item::Table(Table::new([evil]).row([evil])),
            Item::Bars(Bars::new(evil, evil).bar(evil, 1.0, evil)),
            Item::Lines(Lines::new(evil, evil, evil).series(evil, vec![(0.0, 1.0), (1.0, 2.0)])),
            Item::Lanes(Lanes::new(evil, evil).lane(evil, vec![Span::new(0.0, 1.0, evil, evil)])),
            Item::Hexdump(Hexdump::new(evil, 0, b"<script>").note(0, 1, evil)),
            Item::Listing(Listing::new(evil).line(evil, evil)),
            Item::Figure { title: evil.into(), text: evil.into(), svg: String::new() },
            Item::Missing { what: evil.into(), why: evil.into(), fix: evil.into() },
        ];
        let page = html(&run_with(items, evil));
        assert!(!page.contains("<script") && !page.contains("<b>"), "markup got through");
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_page_fetches_nothing_and_embeds_the_run() {
        let page = html(&run_with(vec![], "plain"));
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"));
        assert!(page.contains("&quot;schema&quot;: 1"));
    }
}
