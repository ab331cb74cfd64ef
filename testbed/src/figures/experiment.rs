//! What an experiment is: it measures rows, one for each series and place on the x axis, and says how they are drawn. A new one is a file
//! beside `streams.rs` and a line in [`all`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::{Args, FiguresError, store};
use crate::clip::{ClipSpec, make_clips};
use crate::machine::Machine;
use crate::noise::Noise;
use crate::peers::Peer;
use crate::procstat;

/// Titles that clients are spread over, `clip-0000.mp4` and on.
pub const TITLES: u32 = 8;
/// Ramp, stragglers and the end come on top of the seconds measured.
const EXTRA_SECONDS: u32 = 40;
/// How long other programs are watched to see what they use.
const LOOK: Duration = Duration::from_millis(500);

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured: a server, usually.
    pub series: String,
    /// Its place on the x axis.
    pub x: f64,
    /// What was found, by name.
    pub values: BTreeMap<String, f64>,
    /// What went wrong, if something did.
    pub trouble: Option<String>,
    /// What other programs used meanwhile, percent of a core, when that was enough to disturb.
    pub disturbed_percent: Option<f64>,
}

impl Row {
    /// A value that was measured.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied().filter(|v| v.is_finite())
    }
}

/// What an experiment leaves: everything that its report needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Its name.
    pub experiment: String,
    /// What it was asked; rows measured otherwise cannot stand beside these.
    pub settings: BTreeMap<String, f64>,
    /// Where it was measured.
    pub machine: Machine,
    /// What that machine itself added to a spinning thread, measured in the same run, one probe for each core.
    pub noise: Vec<Noise>,
    /// When it began, RFC 3339.
    pub began: String,
    /// The rows, in the order measured.
    pub rows: Vec<Row>,
    /// Why it is not complete, if it is not.
    pub failure: Option<String>,
}

impl Data {
    /// The names of the series in the order of their first rows.
    pub fn series(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.series.as_str()) {
                names.push(&row.series);
            }
        }
        names
    }

    /// The points of one series and value, by place.
    pub fn points(&self, series: &str, value: &str) -> Vec<(f64, f64)> {
        let rows = self.rows.iter().filter(|row| row.series == series);
        let mut points: Vec<(f64, f64)> = rows.filter_map(|row| Some((row.x, row.value(value)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    /// The greatest of a value over all rows.
    pub fn most(&self, value: &str) -> Option<f64> {
        self.rows.iter().filter_map(|row| row.value(value)).max_by(f64::total_cmp)
    }
}

/// An experiment.
pub trait Experiment {
    /// Its name on the command line and of its files.
    fn name(&self) -> &'static str;
    /// Its heading.
    fn title(&self) -> &'static str;
    /// In a line, for `--list`.
    fn about(&self) -> &'static str;
    /// Only root can run it.
    fn needs_root(&self) -> bool {
        false
    }
    /// What it will be asked, as kept with the data.
    fn settings(&self, args: &Args) -> BTreeMap<String, f64>;
    /// How it was measured, in sentences.
    fn method(&self, data: &Data) -> String;
    /// Measures, by [`Context::measure`]. What was measured before an error is kept.
    ///
    /// # Errors
    /// Nothing more can be measured.
    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError>;
    /// How the data is drawn.
    fn plots(&self, data: &Data) -> Vec<Plot>;
    /// Columns of the table under the plots: heading, value, factor, decimals.
    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)];
}

/// All experiments, in the order of the report.
pub fn all() -> Vec<Box<dyn Experiment>> {
    vec![
        Box::new(super::streams::Streams),
        Box::new(super::cpu_load::CpuLoad),
        Box::new(super::lateness::Lateness),
        Box::new(super::priority::Priority),
        Box::new(super::ifq::Ifq),
        Box::new(super::ifq::linux::IfqLinux),
    ]
}

/// What an experiment works with.
pub struct Context<'a> {
    /// What was asked.
    pub args: &'a Args,
    /// Servers to compare.
    pub peers: &'a [Peer],
    /// Rows of an earlier run that are as good as new ones.
    pub(super) earlier: Vec<Row>,
    /// What there is so far.
    pub(super) data: Data,
}

impl Context<'_> {
    /// Cores of the machine.
    pub fn cores(&self) -> usize {
        self.data.machine.cores
    }

    /// The folder of titles for the rate asked, made when it is not there.
    ///
    /// # Errors
    /// The titles cannot be made.
    pub fn media(&self) -> Result<PathBuf, FiguresError> {
        self.media_for(self.args.seconds())
    }

    /// The same for measurements of another length.
    ///
    /// # Errors
    /// The titles cannot be made.
    pub fn media_for(&self, seconds: f64) -> Result<PathBuf, FiguresError> {
        let seconds = seconds.ceil() as u32 + EXTRA_SECONDS;
        let folder = self.args.out.join("media").join(format!("{}bps-{seconds}s", self.args.rate));
        if !folder.join(format!("clip-{:04}.mp4", TITLES - 1)).is_file() {
            make_clips(&ClipSpec { rate_bps: self.args.rate, audio_bps: 0, seconds, ..ClipSpec::default() }, TITLES, &folder)?;
        }
        Ok(folder)
    }

    /// The folder for what servers say.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn logs(&self) -> Result<PathBuf, FiguresError> {
        let folder = self.args.out.join("logs");
        std::fs::create_dir_all(&folder).map_err(|e| FiguresError::File(folder.clone(), e))?;
        Ok(folder)
    }

    /// Measures one row, unless an earlier run did, and keeps it at once.
    ///
    /// # Errors
    /// As of `measure`; or the row cannot be written.
    pub fn measure(
        &mut self,
        series: &str,
        x: f64,
        measure: impl FnOnce(&mut Self) -> Result<Row, FiguresError>,
    ) -> Result<Row, FiguresError> {
        let same = |row: &Row| row.series == series && row.x == x;
        let row = match self.earlier.iter().find(|row| same(row)) {
            Some(row) => {
                eprintln!("  {series} at {x}: measured before");
                row.clone()
            }
            None => {
                self.wait_for_quiet();
                eprintln!("  {series} at {x}");
                measure(self)?
            }
        };
        if let Some(trouble) = &row.trouble {
            eprintln!("    {trouble}");
        }
        if let Some(percent) = row.disturbed_percent {
            eprintln!("    disturbed: other programs used {percent:.0} % of a core meanwhile");
        }
        self.data.rows.push(row.clone());
        store::save(&self.args.out, &self.data)?;
        Ok(row)
    }

    /// Keeps rows that the machine's other work cannot have touched: those of simulated time.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep(&mut self, rows: Vec<Row>) -> Result<(), FiguresError> {
        self.data.rows.extend(rows);
        store::save(&self.args.out, &self.data)
    }

    /// Waits, for as long as was asked at most, until other programs leave the machine alone.
    fn wait_for_quiet(&self) {
        let deadline = Instant::now() + self.args.wait();
        let mut told = false;
        while Instant::now() < deadline {
            let busy = procstat::machine().map(|m| m.busy_ns);
            std::thread::sleep(LOOK);
            let (Ok(before), Ok(after)) = (busy, procstat::machine().map(|m| m.busy_ns)) else { return };
            if 100.0 * after.saturating_sub(before) as f64 <= self.args.disturbance * LOOK.as_nanos() as f64 {
                return;
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!("  waiting for other programs, {:.0} s at most", self.args.wait().as_secs_f64());
            }
        }
    }
}
