//! The report: one HTML page that needs nothing else, with the plots inside. It is written as XML, so that a strict parser takes it too.

use std::fmt::Write as _;

use super::experiment::{Data, Experiment};
use super::plot::escape;
use super::scale::number;
use super::servers::display_name;
use crate::machine::Machine;
use crate::noise::Noise;

/// How the page, and a plot in a file of its own, look.
pub const STYLE: &str = include_str!("report.css");

/// What the report is made of.
pub struct Report<'a> {
    /// Where and of what it was made.
    pub machine: &'a Machine,
    /// When, RFC 3339.
    pub made: String,
    /// What the machine itself adds, measured in the same run.
    pub noise: &'a [Noise],
    /// Experiments with what they found.
    pub parts: Vec<(&'a dyn Experiment, &'a Data)>,
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <title>Tactus: figures</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Tactus: figures</h1>\n"
        );
        self.provenance(&mut page);
        for (experiment, data) in &self.parts {
            section(*experiment, data, &mut page);
        }
        page.push_str("</body>\n</html>\n");
        page
    }

    fn provenance(&self, page: &mut String) {
        let Machine { cores, kernel, processor, memory_mib, commit } = self.machine;
        let _ = write!(
            page,
            "<dl>\n<dt>made</dt><dd>{}</dd>\n<dt>commit</dt><dd>{}</dd>\n<dt>machine</dt><dd>{cores} cores, {}, {} GiB</dd>\n\
             <dt>kernel</dt><dd>Linux {}</dd>\n<dt>noise</dt><dd>",
            escape(&self.made),
            escape(commit),
            escape(processor),
            number(*memory_mib as f64 / 1024.0),
            escape(kernel)
        );
        page.push_str("what kept a spinning thread from running, in the same run, before the first measurement");
        for noise in self.noise {
            let core = noise.cpu.map_or(String::new(), |cpu| format!("core {cpu}: "));
            let _ = write!(
                page,
                "<br/>{core}{} waits above 50 us and {} above 1 ms per second, the longest {} ms (in {} s)",
                number(noise.above_50_us_per_s),
                number(noise.above_1_ms_per_s),
                number(noise.max_us / 1e3),
                number(noise.seconds)
            );
        }
        page.push_str("</dd>\n</dl>\n");
    }
}

fn section(experiment: &dyn Experiment, data: &Data, page: &mut String) {
    let name = experiment.name();
    let _ = writeln!(page, "<section id=\"{name}\">\n<h2>{}</h2>", escape(experiment.title()));
    if let Some(failure) = &data.failure {
        let _ = writeln!(
            page,
            "<p class=\"failure\">Not complete: {}. What was measured before is shown; <code>testbed figures --resume</code> measures the rest.</p>",
            escape(failure)
        );
    }
    let _ = writeln!(page, "<p>{}</p>", escape(&experiment.method(data)));
    for plot in experiment.plots(data) {
        let _ = writeln!(
            page,
            "<figure id=\"{}\">\n<h3>{}</h3>\n{}\n<figcaption>{}</figcaption>\n</figure>",
            escape(&plot.id),
            escape(&plot.title),
            plot.svg(),
            escape(plot.caption.trim())
        );
    }
    table(experiment, data, page);
    let _ = writeln!(
        page,
        "<p class=\"raw\">Measured from {}, commit {}, on {} cores with Linux {}. All figures: <a href=\"{name}.csv\">{name}.csv</a>, \
         <a href=\"{name}.json\">{name}.json</a>.</p>\n</section>",
        escape(&data.began),
        escape(&data.machine.commit),
        data.machine.cores,
        escape(&data.machine.kernel)
    );
}

fn table(experiment: &dyn Experiment, data: &Data, page: &mut String) {
    let columns = experiment.columns();
    page.push_str(
        "<details>\n<summary>The figures in a table</summary>\n<div class=\"wide\"><table>\n<thead><tr><th>series</th><th>at</th>",
    );
    for (heading, ..) in columns {
        let _ = write!(page, "<th>{}</th>", escape(heading));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &data.rows {
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", escape(display_name(&row.series)), number(row.x));
        for (_, value, factor, decimals) in columns {
            let text = row.value(value).map_or("-".to_owned(), |v| format!("{:.decimals$}", v * factor));
            let _ = write!(page, "<td>{text}</td>");
        }
        page.push_str("</tr>\n");
        if let Some(trouble) = &row.trouble {
            let _ = writeln!(page, "<tr class=\"trouble\"><td></td><td colspan=\"{}\">{}</td></tr>", columns.len() + 1, escape(trouble));
        }
    }
    page.push_str("</tbody>\n</table></div>\n</details>\n");
}
