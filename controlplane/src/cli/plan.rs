//! From a configuration to what this machine can do about it: which CPUs do what, whether the media folder is there, which URLs a
//! player can be given. Everything that can be refused before anything is started is refused here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{Config, EngineCores};

/// A configuration on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// The media folder, absolute and without symbolic links.
    pub media: PathBuf,
    /// Which CPUs do what.
    pub cpus: Cpus,
    /// Where indexes are kept; `None` for nowhere.
    pub index_cache: Option<PathBuf>,
}

/// Which CPUs do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// One engine core on each.
    pub engine: Vec<u32>,
    /// Where the control core's threads run; shared with the engine when there are no others.
    pub control: Vec<u32>,
}

/// Why a configuration cannot be carried out here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `./media` was not asked for and is not there.
    #[error(
        "there is no folder {path} here, so there is nothing to serve.\n\
         Either name a folder:  tactus serve --media /path/to/films\n\
         or make a clip:        mkdir media && ffmpeg -f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine=frequency=440 \
         -t 60 -c:v libx264 -pix_fmt yuv420p -g 50 -c:a aac media/sample.mp4",
        path = .path.display()
    )]
    NoDefaultMedia {
        /// The default folder.
        path: PathBuf,
    },
    /// The folder that was asked for is not there.
    #[error("media folder {path}: {reason}; give another with --media", path = .path.display())]
    NoMedia {
        /// The folder.
        path: PathBuf,
        /// The operating system's answer, or what it is instead.
        reason: String,
    },
    /// The folder that files may be imported from is not there.
    #[error("import-from {path}: {reason}", path = .path.display())]
    NoImports {
        /// The folder.
        path: PathBuf,
        /// The operating system's answer, or what it is instead.
        reason: String,
    },
    /// An engine core on a CPU that this process may not use.
    #[error("engine-cores: CPU {cpu} is not among those that this process may use ({allowed}); see `taskset -p $$`")]
    Cpu {
        /// The CPU.
        cpu: u32,
        /// Those it may use.
        allowed: String,
    },
    /// The operating system does not say which CPUs may be used.
    #[error("cannot find out which CPUs this process may use: {0}")]
    NoCpus(String),
}

impl PlanError {
    /// True when the configuration is to blame rather than the machine's state.
    pub fn is_configuration(&self) -> bool {
        matches!(self, PlanError::Cpu { .. })
    }
}

impl Plan {
    /// Plans `config`; `media_given` tells whether somebody named the media folder.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(config: Config, media_given: bool) -> Result<Self, PlanError> {
        let allowed = super::os::allowed_cpus().map_err(|e| PlanError::NoCpus(e.to_string()))?;
        let cpus = place(&config.engine_cores, &allowed)?;
        let media = media_folder(&config.media, media_given)?;
        if let Some(path) = config.import_from.dir() {
            usable_folder(path).map_err(|reason| PlanError::NoImports { path: path.to_owned(), reason })?;
        }
        let index_cache = config.index_cache.resolve(|name| std::env::var(name).ok());
        Ok(Self { config, media, cpus, index_cache })
    }
}

/// Gives every engine core its CPU, and the control core the others.
fn place(cores: &EngineCores, allowed: &[u32]) -> Result<Cpus, PlanError> {
    let engine = match cores {
        EngineCores::Auto => allowed.last().copied().into_iter().collect(),
        EngineCores::List(list) => list.as_slice().to_vec(),
    };
    if let Some(&cpu) = engine.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed = allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(PlanError::Cpu { cpu, allowed });
    }
    if engine.is_empty() {
        return Err(PlanError::NoCpus("the affinity mask is empty".into()));
    }
    let others: Vec<u32> = allowed.iter().copied().filter(|cpu| !engine.contains(cpu)).collect();
    let control = if others.is_empty() { allowed.to_vec() } else { others };
    Ok(Cpus { engine, control })
}

fn media_folder(path: &Path, given: bool) -> Result<PathBuf, PlanError> {
    if !given && path.canonicalize().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(PlanError::NoDefaultMedia { path: path.to_owned() });
    }
    usable_folder(path).map_err(|reason| PlanError::NoMedia { path: path.to_owned(), reason })
}

/// The folder, links resolved, if there is one that this user may read.
fn usable_folder(path: &Path) -> Result<PathBuf, String> {
    match path.canonicalize() {
        Err(error) => Err(error.to_string()),
        Ok(folder) if !folder.is_dir() => Err("it is not a folder".into()),
        Ok(folder) => std::fs::read_dir(&folder).map(|_| folder).map_err(|error| error.to_string()),
    }
}

/// Addresses to give to a player when the server listens at `bound`: a bound address as it is; for "any address" the one that other
/// machines would use (`own`), if there is one, and the loopback.
pub fn reachable(bound: SocketAddr, own: Option<Ipv4Addr>) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    own.into_iter().chain([Ipv4Addr::LOCALHOST]).map(|host| SocketAddr::new(IpAddr::V4(host), bound.port())).collect()
}

/// What a URL's path needs escaped (RFC 3986 3.3, and everything that shells and players stumble on).
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// URL of a title at a server.
pub fn url(server: SocketAddr, path: &str) -> String {
    let path = utf8_percent_encode(path, PATH_ESCAPES);
    match server {
        // The default port of RTSP (RFC 2326 3.2).
        SocketAddr::V4(v4) if v4.port() == 554 => format!("rtsp://{}/{path}", v4.ip()),
        _ => format!("rtsp://{server}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> EngineCores {
        text.parse().unwrap()
    }

    #[test]
    fn engine_and_control_share_a_cpu_only_when_they_must() {
        let cpus = |engine: &[u32], control: &[u32]| Ok(Cpus { engine: engine.to_vec(), control: control.to_vec() });
        assert_eq!(place(&EngineCores::Auto, &[0, 1, 2]), cpus(&[2], &[0, 1]));
        assert_eq!(place(&EngineCores::Auto, &[5]), cpus(&[5], &[5]));
        assert_eq!(place(&list("0,2"), &[0, 1, 2]), cpus(&[0, 2], &[1]));
        assert_eq!(place(&list("0-2"), &[0, 1, 2]), cpus(&[0, 1, 2], &[0, 1, 2]));
        assert_eq!(place(&list("3"), &[0, 1]), Err(PlanError::Cpu { cpu: 3, allowed: "0,1".into() }));
        assert!(matches!(place(&EngineCores::Auto, &[]), Err(PlanError::NoCpus(_))));
    }

    #[test]
    fn missing_folders_say_what_to_do() {
        let here = tempfile::tempdir().unwrap();
        let missing = here.path().join("none");
        assert_eq!(media_folder(&missing, false), Err(PlanError::NoDefaultMedia { path: missing.clone() }));
        let given = media_folder(&missing, true).unwrap_err().to_string();
        assert!(given.contains("No such file") && given.contains("--media"), "{given}");
        let file = here.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(media_folder(&file, false).unwrap_err().to_string().contains("not a folder"));
        assert_eq!(media_folder(here.path(), true), Ok(here.path().canonicalize().unwrap()));
    }

    #[test]
    fn urls_can_be_pasted_into_a_player() {
        let any: SocketAddr = "0.0.0.0:8554".parse().unwrap();
        let own = Some(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(reachable(any, own), ["192.0.2.7:8554".parse().unwrap(), "127.0.0.1:8554".parse().unwrap()]);
        assert_eq!(reachable(any, None), ["127.0.0.1:8554".parse().unwrap()]);
        let one: SocketAddr = "[2001:db8::1]:8554".parse().unwrap();
        assert_eq!(reachable(one, own), [one]);
        assert_eq!(url(one, "a b/ü?#%.mp4"), "rtsp://[2001:db8::1]:8554/a%20b/%C3%BC%3F%23%25.mp4");
        assert_eq!(url("192.0.2.7:554".parse().unwrap(), "x.mp4"), "rtsp://192.0.2.7/x.mp4");
    }
}
