//! The results as one page that needs nothing else: no script, nothing fetched.

use benches::record::{Lab, Outcome, Record, ratio_words};
use kit::stats::figure;

use super::{chart, trend};
use chart::escape;

const STYLE: &str = include_str!("style.css");

/// The page of a record; `history` is the records of the same machine, for what has changed over time.
pub(super) fn page(record: &Record, history: &[Record]) -> String {
    let mut body = format!(
        "<h1><small>benchtop</small>Which is faster here, by how much, and is it real?</h1>\n\
         <p class=\"machine\">{} · {}</p>\n",
        escape(&record.date),
        escape(&record.machine_line())
    );
    if record.quick {
        body += "<p class=\"warn\">A quick run of few rounds: it shows that all works, and is nothing to conclude from.</p>\n";
    }
    body += "<p>A ratio is our cost divided by the other's, paired round by round, the median, with its 95 % interval: \
             below 1 ours costs less. Where the interval holds 1, no difference is shown. Where the machine was too \
             noisy for a verdict, none is given. One interval in twenty misses by chance: of many, do not pick one.</p>\n<nav>";
    for lab in &record.labs {
        body += &format!("<a href=\"#{0}\">{0}</a> ", escape(&lab.lab));
    }
    body += "</nav>\n";
    for lab in &record.labs {
        body += &section(lab, history);
    }
    body += "<h2>The machine</h2>\n<table>";
    for (name, value) in &record.settings {
        body += &format!("<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    }
    body += "</table>\n";
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>benchtop: {}</title>\n\
         <style>{STYLE}</style></head><body>\n{body}</body></html>\n",
        escape(&record.date)
    )
}

fn section(lab: &Lab, history: &[Record]) -> String {
    let name = escape(&lab.lab);
    let mut out = format!("<h2 id=\"{name}\">{name}</h2>\n");
    if !lab.notes.is_empty() {
        out += "<ul class=\"notes\">";
        lab.notes.iter().for_each(|n| out += &format!("<li>{}</li>", escape(n)));
        out += "</ul>\n";
    }
    lab.outcomes.iter().for_each(|o| out += &comparison(o));
    if !lab.parts.is_empty() {
        out += "<section><h3>Its parts, by Criterion</h3>\n<div class=\"scroll\"><table><tr><th>part</th>\
                <th class=\"r\">median</th><th class=\"r\">95 %</th><th class=\"r\">throughput</th></tr>\n";
        for p in &lab.parts {
            let [ns, low, high] = [p.ns, p.low, p.high].map(benches::record::time);
            out += &format!(
                "<tr><td>{}</td><td class=\"r\">{ns}</td><td class=\"r\">{low} .. {high}</td><td class=\"r\">{}</td></tr>\n",
                escape(&p.name),
                p.rate()
            );
        }
        out += "</table></div></section>\n";
    }
    let trend = trend::of(&lab.lab, history);
    if !trend.is_empty() {
        out += &format!(
            "<section><h3>Ours / theirs over time</h3>\n<div class=\"pair\">{trend}</div></section>\n"
        );
    }
    out
}

fn comparison(o: &Outcome) -> String {
    let mut aside = format!("<p><b>Not fair</b> {}</p>", escape(&o.unfair));
    aside += &format!("<p class=\"soft\">{} interleaved rounds", o.rounds());
    if let Some(noise) = &o.noise {
        aside += &format!("; {}", escape(&noise.words()));
    }
    if let Some(apart) = &o.apart {
        aside += &format!("; other processes do not count: {}", escape(apart));
    }
    aside += "</p>";
    let mut pictures = String::new();
    for (caption, picture) in [
        ("Rounds that cost at most so much", chart::distributions(o)),
        ("How the costs lie", chart::violins(o)),
    ] {
        if !picture.is_empty() {
            pictures += &format!("<figure><figcaption>{caption}</figcaption>{picture}</figure>");
        }
    }
    format!(
        "<section><h3>{}</h3>\n<div class=\"beside\"><div>{}{}</div><aside>{aside}</aside></div>\n\
         <div class=\"pair\">{pictures}</div></section>\n",
        escape(&o.title),
        chart::ratios(o),
        table(o)
    )
}

fn table(o: &Outcome) -> String {
    let base = o.base.as_ref().map_or_else(String::new, |b| format!("<th class=\"r\">x {}</th>", escape(b)));
    let any = o.rows.iter().any(|r| !r.counts.is_empty() || r.missing.is_some());
    let head = if any { "<th>counted</th>" } else { "" };
    let mut out = format!(
        "<div class=\"scroll\"><table><tr><th>who</th><th class=\"r\">{}</th><th class=\"r\">10th .. 90th</th>{base}\
         {head}</tr>\n",
        escape(&o.unit)
    );
    for row in &o.rows {
        let s = &row.summary;
        let to_base = match (&o.base, &row.to_base) {
            (None, _) => String::new(),
            (Some(_), Some(r)) => format!("<td class=\"r\">{}</td>", ratio_words(r)),
            (Some(base), None) => {
                format!("<td class=\"r\">{}</td>", if *base == row.name { "1" } else { "-" })
            }
        };
        let counted =
            row.missing.as_ref().map_or_else(|| row.counted(), |why| format!("not measured: {why}"));
        let counted = if any { format!("<td>{}</td>", escape(&counted)) } else { String::new() };
        out += &format!(
            "<tr><td>{}</td><td class=\"r\">{}</td><td class=\"r\">{} .. {}</td>{to_base}{counted}</tr>\n",
            escape(&row.name),
            figure(s.median),
            figure(s.p10),
            figure(s.p90)
        );
    }
    out + "</table></div>"
}
