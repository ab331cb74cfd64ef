//! Movie fragments (ISO/IEC 14496-12 8.8): `moof` boxes add samples to the tracks that `moov` announced.

use std::collections::HashMap;

use super::boxes::View;
use super::sink::{Budget, Sink};
use super::track::{TrackState, children};
use crate::media::TrackKind;
use crate::media::error::MediaError;
use crate::media::index::TIME_MAX;

/// What a fragment says of a sample when it says nothing (`trex`, and `tfhd` on top of it).
#[derive(Clone, Copy, Debug, Default)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// The defaults of each track by its id, from `mvex`.
#[derive(Debug, Default)]
pub struct TrackDefaults(HashMap<u32, Defaults>);

impl TrackDefaults {
    /// Reads the `trex` boxes of an `mvex`.
    pub fn parse(mvex: View<'_>) -> Result<Self, MediaError> {
        let mut tracks = HashMap::new();
        for child in mvex.boxes() {
            let child = child?;
            if child.kind == *b"trex" {
                let mut fields = child.body.fields("trex");
                fields.version_flags()?;
                let id = fields.u32()?;
                fields.u32()?;
                tracks.insert(id, Defaults { duration: fields.u32()?, size: fields.u32()?, flags: fields.u32()? });
            }
        }
        Ok(Self(tracks))
    }
}

mod tfhd {
    pub const BASE_DATA_OFFSET: u32 = 0x01;
    pub const SAMPLE_DESCRIPTION: u32 = 0x02;
    pub const DURATION: u32 = 0x08;
    pub const SIZE: u32 = 0x10;
    pub const FLAGS: u32 = 0x20;
    pub const BASE_IS_MOOF: u32 = 0x02_0000;
}

mod trun {
    pub const DATA_OFFSET: u32 = 0x001;
    pub const FIRST_FLAGS: u32 = 0x004;
    pub const DURATION: u32 = 0x100;
    pub const SIZE: u32 = 0x200;
    pub const FLAGS: u32 = 0x400;
    pub const CTS_OFFSET: u32 = 0x800;
}

/// `sample_is_non_sync_sample`, and `sample_depends_on` = 1 (others): 8.8.3.1.
const NOT_SYNC: u32 = 0x0101_0000;

/// Adds the samples of the `moof` whose header is at `moof_at` to `tracks`.
pub fn add_fragment(
    moof: View<'_>,
    moof_at: u64,
    defaults: &TrackDefaults,
    tracks: &mut HashMap<u32, Box<TrackState>>,
    budget: &mut Budget,
) -> Result<(), MediaError> {
    // Where data goes on for a `traf` that says nothing: at the first one the fragment's start, later the end of the one before (8.8.7.1).
    let mut data_end = moof_at;
    for child in moof.boxes() {
        let child = child?;
        if child.kind == *b"traf" {
            data_end = add_track_fragment(child.body, moof_at, data_end, defaults, tracks, budget)?;
        }
    }
    Ok(())
}

fn add_track_fragment(
    traf: View<'_>,
    moof_at: u64,
    data_end: u64,
    defaults: &TrackDefaults,
    tracks: &mut HashMap<u32, Box<TrackState>>,
    budget: &mut Budget,
) -> Result<u64, MediaError> {
    let [header, time] = children(traf, [b"tfhd", b"tfdt"])?;
    let Some(header) = header else {
        return Err(MediaError::Broken { what: "no tfhd box in the traf that starts here".into(), at: traf.at });
    };
    let mut fields = header.fields("tfhd");
    let (_, flags) = fields.version_flags()?;
    let id = fields.u32()?;
    let base = if flags & tfhd::BASE_DATA_OFFSET != 0 {
        fields.u64()?
    } else if flags & tfhd::BASE_IS_MOOF != 0 {
        moof_at
    } else {
        data_end
    };
    let mut defaults = defaults.0.get(&id).copied().unwrap_or_default();
    if flags & tfhd::SAMPLE_DESCRIPTION != 0 {
        fields.u32()?;
    }
    if flags & tfhd::DURATION != 0 {
        defaults.duration = fields.u32()?;
    }
    if flags & tfhd::SIZE != 0 {
        defaults.size = fields.u32()?;
    }
    if flags & tfhd::FLAGS != 0 {
        defaults.flags = fields.u32()?;
    }
    // Runs of a track that is left out are stepped through for the end of their data only.
    let mut track = tracks.get_mut(&id);
    if let (Some(track), Some(time)) = (&mut track, time) {
        set_time(track, time)?;
    }
    let mut run = Run { base, offset: base, defaults };
    for child in traf.boxes() {
        let child = child?;
        if child.kind == *b"trun" {
            run.add(child.body, track.as_mut().map(|track| &mut ***track), budget)?;
        }
    }
    Ok(run.offset)
}

/// `tfdt`: the fragment's first decode time. Times that go back before the last sample are those of a stream that was started anew; it then
/// goes on where it was.
fn set_time(track: &mut TrackState, tfdt: View<'_>) -> Result<(), MediaError> {
    let mut fields = tfdt.fields("tfdt");
    let (version, _) = fields.version_flags()?;
    let time = i64::try_from(fields.u32_or_u64(version)?).ok().filter(|time| *time <= TIME_MAX);
    let Some(time) = time else { return Err(fields.broken("a decode time that is out of range")) };
    if time >= track.collector.last_dts() {
        track.collector.set_next_dts(time);
    }
    Ok(())
}

/// The runs of one track fragment.
struct Run {
    base: u64,
    /// Where the next run's data starts if it does not say so.
    offset: u64,
    defaults: Defaults,
}

impl Run {
    fn add(&mut self, trun: View<'_>, track: Option<&mut TrackState>, budget: &mut Budget) -> Result<(), MediaError> {
        let mut fields = trun.fields("trun");
        let (_, flags) = fields.version_flags()?;
        let count = fields.u32()?;
        if flags & trun::DATA_OFFSET != 0 {
            let offset = self.base.checked_add_signed(i64::from(fields.u32()? as i32));
            self.offset = offset.ok_or_else(|| fields.broken("its data would lie before the file"))?;
        }
        let first_flags = if flags & trun::FIRST_FLAGS != 0 { Some(fields.u32()?) } else { None };
        let columns = [trun::DURATION, trun::SIZE, trun::FLAGS, trun::CTS_OFFSET].map(|column| flags & column != 0);
        let row_bytes = 4 * columns.iter().filter(|there| **there).count();
        let room = fields.rest().bytes.len().checked_div(row_bytes).map_or(u64::MAX, |rows| rows as u64);
        if u64::from(count) > room {
            return Err(fields.broken(&format!("says {count} samples but has room for {room}")));
        }
        let [has_duration, has_size, ..] = columns;
        let Some(track) = track else { return self.skip(fields, count, columns) };
        let audio = track.kind == TrackKind::Audio;
        let mut sink = Sink { budget, track: &mut track.collector };
        if !has_size && self.defaults.size == 0 && !has_duration {
            return sink.skip(u64::from(count) * u64::from(self.defaults.duration));
        }
        for i in 0..count {
            let Row { duration, size, flags, cts_offset } = self.row(&mut fields, columns)?;
            let flags = first_flags.filter(|_| i == 0).unwrap_or(flags);
            sink.add(self.offset, size, duration, cts_offset, audio || flags & NOT_SYNC == 0)?;
            self.offset = self.offset.saturating_add(u64::from(size));
        }
        Ok(())
    }

    fn skip(&mut self, mut fields: super::boxes::Fields<'_>, count: u32, columns: [bool; 4]) -> Result<(), MediaError> {
        let [_, has_size, ..] = columns;
        if !has_size {
            self.offset = self.offset.saturating_add(u64::from(count) * u64::from(self.defaults.size));
            return Ok(());
        }
        for _ in 0..count {
            let row = self.row(&mut fields, columns)?;
            self.offset = self.offset.saturating_add(u64::from(row.size));
        }
        Ok(())
    }

    fn row(&self, fields: &mut super::boxes::Fields<'_>, columns: [bool; 4]) -> Result<Row, MediaError> {
        let [duration, size, flags, cts_offset] = columns;
        let mut column = |there: bool, default: u32| if there { fields.u32() } else { Ok(default) };
        Ok(Row {
            duration: column(duration, self.defaults.duration)?,
            size: column(size, self.defaults.size)?,
            flags: column(flags, self.defaults.flags)?,
            // Signed in version 1; in version 0 no offset is that large, so those that seem so are negative too.
            cts_offset: column(cts_offset, 0)? as i32,
        })
    }
}

struct Row {
    duration: u32,
    size: u32,
    flags: u32,
    cts_offset: i32,
}
