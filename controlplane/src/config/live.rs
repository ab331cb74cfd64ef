//! Live channels: who may send them to us, and what becomes of one whose sender is gone.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{ClassQuery, ValueError};
use crate::units::{ByteSize, MIB};

/// Beginnings of the paths that clients may record to, or that recordings may have. None: nobody may, and there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPaths(Vec<String>);

impl RecordPaths {
    /// True when nobody may record.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }

    /// True when `path` begins with one of them.
    pub fn allows(&self, path: &str) -> bool {
        self.0.iter().any(|prefix| path.starts_with(prefix.as_str()) && path.len() > prefix.len())
    }
}

impl FromStr for RecordPaths {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let prefix = |text: &str| {
            let prefix = text.trim().trim_start_matches('/');
            let fits = !prefix.is_empty() && !prefix.split('/').any(|segment| segment == "..") && !prefix.contains(char::is_control);
            if fits { Ok(prefix.to_owned()) } else { Err(ValueError::RecordPath(text.to_owned())) }
        };
        if text.trim() == "off" {
            return Ok(Self::default());
        }
        text.split(',').filter(|part| !part.trim().is_empty()).map(prefix).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for RecordPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() { f.write_str("off") } else { f.write_str(&self.0.join(",")) }
    }
}

/// What becomes of a channel whose sender is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveLost {
    /// Its viewers' sessions end.
    End,
    /// They wait for a sender to come back.
    Hold,
}

impl FromStr for LiveLost {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "end" => Ok(Self::End),
            "hold" => Ok(Self::Hold),
            _ => Err(ValueError::Choice { text: text.to_owned(), choices: "\"end\" and \"hold\"" }),
        }
    }
}

impl fmt::Display for LiveLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "end",
            Self::Hold => "hold",
        })
    }
}

/// Why a client may not record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    /// Nobody may.
    #[error("recording is switched off; --record-paths names where clients may record to")]
    Off,
    /// Not there.
    #[error("clients may not record to this path; --record-paths names where they may")]
    Path,
    /// Not from there.
    #[error("clients may not record from this address; --record-from names who may")]
    Address,
}

/// Who may record where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRules {
    /// Where.
    pub paths: RecordPaths,
    /// Who.
    pub from: ClassQuery,
}

impl Default for RecordRules {
    fn default() -> Self {
        Self { paths: RecordPaths::default(), from: ClassQuery::Any }
    }
}

impl RecordRules {
    /// Whether the client at this address may record to `path`.
    ///
    /// # Errors
    /// [`RecordRefused`], which says what to set.
    pub fn check(&self, path: &str, client: IpAddr) -> Result<(), RecordRefused> {
        if self.paths.is_off() {
            return Err(RecordRefused::Off);
        }
        if !self.paths.allows(path) {
            return Err(RecordRefused::Path);
        }
        if self.from.allows(client) { Ok(()) } else { Err(RecordRefused::Address) }
    }
}

/// A transport stream that is received: `PATH=udp://ADDRESS:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it can be played.
    pub path: String,
    /// Where it arrives: an address of ours, 0.0.0.0 for any, or a multicast group.
    pub addr: SocketAddr,
}

/// Transport streams that are received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<Source>);

/// Sources at most.
const SOURCES_MAX: usize = 16;

impl FromStr for Source {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::Source(text.to_owned());
        let (path, url) = text.split_once('=').ok_or_else(wrong)?;
        let path = path.trim().trim_matches('/');
        let unfit = path.is_empty() || path.contains(char::is_control) || path.split('/').any(|segment| matches!(segment, "" | "." | ".."));
        let addr: SocketAddr =
            url.trim().strip_prefix("udp://").and_then(|addr| addr.trim_start_matches('@').parse().ok()).ok_or_else(wrong)?;
        if unfit || addr.port() == 0 { Err(wrong()) } else { Ok(Self { path: path.to_owned(), addr }) }
    }
}

impl FromStr for Sources {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let sources = text.split(',').filter(|part| !part.trim().is_empty()).map(str::parse).collect::<Result<Vec<Source>, _>>()?;
        if sources.len() > SOURCES_MAX {
            return Err(ValueError::TooMany { text: text.to_owned(), max: SOURCES_MAX });
        }
        Ok(Self(sources))
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Source { path, addr }) in self.0.iter().enumerate() {
            write!(f, "{}{path}=udp://{addr}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Settings of live channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// Who may record where.
    pub record: RecordRules,
    /// How much later than they are decoded samples are due, milliseconds.
    pub latency_ms: u32,
    /// What becomes of a channel whose sender is gone.
    pub lost: LiveLost,
    /// A sender that is silent for this long is gone, seconds.
    pub timeout_s: u32,
    /// How long a channel without a sender is held, seconds.
    pub hold_s: u32,
    /// Buffers of one channel.
    pub memory: ByteSize,
    /// Transport streams that are received.
    pub sources: Sources,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            record: RecordRules::default(),
            latency_ms: 200,
            lost: LiveLost::End,
            timeout_s: 10,
            hold_s: 60,
            memory: ByteSize(8 * MIB),
            sources: Sources::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_record_where_nothing_says_so() {
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let rules = |paths: &str, from: &str| RecordRules { paths: paths.parse().unwrap(), from: from.parse().unwrap() };
        assert_eq!(RecordRules::default().check("live/a", client), Err(RecordRefused::Off));
        let live = rules("/live/, studio/", "any");
        assert_eq!(live.paths.to_string(), "live/,studio/");
        assert_eq!(live.check("live/a", client), Ok(()));
        for path in ["live/", "live", "films/a", "xlive/a", ""] {
            assert_eq!(live.check(path, client), Err(RecordRefused::Path), "{path}");
        }
        assert_eq!(rules("live/", "10.0.0.0/8").check("live/a", client), Err(RecordRefused::Address));
        assert_eq!(rules("off", "any").check("live/a", client), Err(RecordRefused::Off));
        let sources: Sources = "live/news=udp://239.1.1.1:5000, b=udp://[::]:5001".parse().unwrap();
        assert_eq!(sources.to_string(), "live/news=udp://239.1.1.1:5000,b=udp://[::]:5001");
        for wrong in ["a", "a=udp://x:1", "a=rtp://1.2.3.4:5", "=udp://1.2.3.4:5", "../a=udp://1.2.3.4:5", "a=udp://1.2.3.4:0"] {
            assert!(wrong.parse::<Sources>().is_err(), "{wrong}");
        }
        assert!("/".parse::<RecordPaths>().is_err() && "../x/".parse::<RecordPaths>().is_err());
    }
}
