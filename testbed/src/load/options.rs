//! What a load run is asked to do.

use std::net::Ipv4Addr;

use clap::{Args, ValueEnum};

/// How packets are to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// RTP/AVP over UDP.
    Udp,
    /// Interleaved in the RTSP connection.
    Tcp,
}

/// A rate such as `50` or `50/s`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().ok().filter(|r: &f64| r.is_finite() && *r > 0.0).ok_or_else(|| "a rate above 0, such as 50/s".to_owned())
}

/// Seconds such as `15` or `1.5`.
fn seconds(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().ok().filter(|s: &f64| (0.0..=1e7).contains(s)).ok_or_else(|| "seconds, such as 15 or 1.5".to_owned())
}

/// What a load run is asked to do.
#[derive(Args, Clone, Debug, serde::Serialize)]
pub struct Options {
    /// What to play; clients take several in turn. `{n}` stands for the client's number (modulo --titles)
    #[arg(long, required = true)]
    pub url: Vec<String>,
    /// How many different numbers `{n}` takes
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub titles: u64,
    /// Clients at the same time
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Clients that begin per second
    #[arg(long, default_value = "100/s", value_parser = rate)]
    pub ramp: f64,
    /// Seconds to measure once all clients have begun
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub duration: f64,
    /// How packets are to come
    #[arg(long, value_enum, default_value = "udp")]
    pub transport: TransportKind,
    /// Take the video only
    #[arg(long)]
    pub video_only: bool,
    /// Each client goes to another place of its title after so many seconds
    #[arg(long, value_parser = seconds)]
    pub seek_every: Option<f64>,
    /// Sessions end and begin anew, after so many seconds on average (10 if not said)
    #[arg(long, value_parser = seconds, num_args = 0..=1, default_missing_value = "10")]
    pub churn: Option<f64>,
    /// Clients have addresses of their own, from this IPv4 address on; all belong to this machine (`ip route add local NETWORK dev lo`)
    #[arg(long)]
    pub from: Option<Ipv4Addr>,
    /// Pin the load generator to this core
    #[arg(long)]
    pub cpu: Option<usize>,
    /// How much the sender's clock may run apart from ours [default: 0 on this machine, 100 otherwise]
    #[arg(long)]
    pub drift_ppm: Option<f64>,
    /// Seconds at the start of a stream that do not form its line of earliest arrivals
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub settle: f64,
    /// A stream without packets for so many seconds starves
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub starve: f64,
    /// Milliseconds between looks at UDP sockets; the kernel's timestamps do not depend on it
    #[arg(long, default_value_t = 2)]
    pub sweep_ms: u32,
    /// Seconds of noise probe before the run (0: none)
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub noise: f64,
    /// Run the generator as an ordinary thread. Otherwise it runs before others where that is permitted, so that it loses nothing itself
    #[arg(long)]
    pub ordinary: bool,
    /// Tell what each stream got, in the JSON
    #[arg(long)]
    pub per_stream: bool,
    /// No progress line
    #[arg(long)]
    pub quiet: bool,
}

impl Options {
    /// The address that client number `n` plays.
    pub fn url_of(&self, n: usize) -> String {
        let url = self.url.get(n % self.url.len().max(1)).map_or("", String::as_str);
        url.replace("{n}", &(n as u64 % self.titles.max(1)).to_string())
    }
}
