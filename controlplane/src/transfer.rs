//! Files that come to be in the media folder: what is asked for, and what is told.

use serde::{Deserialize, Serialize};

/// A wish to copy a file into the media folder; the body of `POST /api/v1/imports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The file: below the folder of `import-from`, from there or absolute.
    pub from: String,
    /// Where it goes: below the media folder, with `/` separators.
    pub to: String,
    /// Copied no faster than this, bits per second.
    #[serde(default)]
    pub rate_bps: Option<u64>,
    /// A file that is there already is replaced.
    #[serde(default)]
    pub replace: bool,
}

/// A wish to record a live stream into a file of the media folder; the body of `POST /api/v1/recordings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingRequest {
    /// The path at which the stream can be played.
    pub channel: String,
    /// Where it goes: below the media folder, with `/` separators, where `recordings-to` allows.
    pub to: String,
    /// How much is recorded at most, seconds; without it, until it is ended or the stream is.
    #[serde(default)]
    pub seconds: Option<u32>,
    /// A file that is there already is replaced, once the recording is whole.
    #[serde(default)]
    pub replace: bool,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferState {
    /// Bytes are being copied or recorded.
    Running,
    /// All bytes are there; they are brought to the disk for good, and the file gets its name.
    Finishing,
    /// The file is there.
    Done,
    /// It did not come to be; nothing is left of it.
    Failed,
    /// Somebody did not want it any more; nothing is left of it.
    Cancelled,
}

impl TransferState {
    /// Nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// An import.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportStatus {
    /// Its number.
    pub id: u64,
    /// The file that is copied.
    pub from: String,
    /// Path below the media folder.
    pub to: String,
    /// How far it is.
    pub state: TransferState,
    /// Bytes that are in the new file.
    pub bytes: u64,
    /// Bytes that it will have.
    pub bytes_total: u64,
    /// Copied no faster than this, bits per second.
    pub rate_bps: Option<u64>,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// For how long it has been going on, or did, seconds.
    pub elapsed_s: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingStatus {
    /// Its number.
    pub id: u64,
    /// Path of the live stream.
    pub channel: String,
    /// Path below the media folder.
    pub to: String,
    /// How far it is.
    pub state: TransferState,
    /// Bytes that are in the file so far, or that it has.
    pub bytes: u64,
    /// How much of the stream, seconds.
    pub recorded_s: f64,
    /// Access units of all tracks.
    pub samples: u64,
    /// How its tracks are coded.
    pub tracks: Vec<String>,
    /// Tracks that are not recorded, and why.
    pub left_out: Vec<String>,
    /// How much is recorded at most, seconds.
    pub seconds: Option<u32>,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// For how long it has been going on, or did, seconds.
    pub elapsed_s: f64,
    /// Why it ended where it did; what came before is in the file.
    pub ended: Option<String>,
    /// Why there is no file.
    pub error: Option<String>,
}

/// Why a transfer was not begun, or is not known; each with the HTTP status that tells the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The operator has not allowed it: 403.
    #[error("{0}")]
    Off(&'static str),
    /// It would leave the folders that it is allowed in: 403.
    #[error("{0}")]
    Forbidden(String),
    /// What is asked for makes no sense: 400.
    #[error("{0}")]
    Wrong(String),
    /// The source, or the transfer, is not there: 404.
    #[error("{0}")]
    NotFound(String),
    /// The file is there already, or is being made: 409.
    #[error("{0}")]
    Conflict(String),
    /// The disk is too full: 507.
    #[error("{0}")]
    NoRoom(String),
    /// Too much is going on, or the system does not let us: 503.
    #[error("{0}")]
    Unavailable(String),
}

impl TransferError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Off(_) | Self::Forbidden(_) => 403,
            Self::Wrong(_) => 400,
            Self::NotFound(_) => 404,
            Self::Conflict(_) => 409,
            Self::NoRoom(_) => 507,
            Self::Unavailable(_) => 503,
        }
    }
}
