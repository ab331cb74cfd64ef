//! Small MP4 files made by hand, for tests of the reader and the library.

/// A box.
pub fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, &body].concat()
}

/// A full box of version 0 without flags.
pub fn full(kind: &[u8; 4], words: &[u32]) -> Vec<u8> {
    boxed(kind, &[&[0; 4], &be(words)])
}

/// Big-endian words.
pub fn be(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// An H.264 sample entry of 64 by 48 pixels.
pub fn avc1() -> Vec<u8> {
    let config = [1, 66, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 30, 1, 0, 2, 0x68, 0xce];
    let fields = [&[0; 6][..], &[0, 1], &[0; 16], &[0, 64, 0, 48], &[0; 50]].concat();
    boxed(b"avc1", &[&fields, &boxed(b"avcC", &[&config])])
}

/// A sound sample entry.
pub fn sound(kind: &[u8; 4], channels: u16, rate: u32, children: &[u8]) -> Vec<u8> {
    let fields = [&[0; 6][..], &[0, 1], &[0; 8], &channels.to_be_bytes(), &[0, 16, 0, 0, 0, 0], &be(&[rate << 16])].concat();
    boxed(kind, &[&fields, children])
}

/// What a track of a test file is made of.
pub struct TestTrack {
    pub id: u32,
    pub handler: [u8; 4],
    pub timescale: u32,
    /// The sample entries, one after the other.
    pub entry: Vec<u8>,
    /// Boxes of `stbl` besides `stsd`.
    pub tables: Vec<u8>,
    /// Boxes of `trak` besides `tkhd` and `mdia`.
    pub extra: Vec<u8>,
}

impl TestTrack {
    /// A video track with these tables.
    pub fn video(tables: Vec<u8>) -> Self {
        Self { id: 1, handler: *b"vide", timescale: 1000, entry: avc1(), tables, extra: Vec::new() }
    }

    /// The `trak` box.
    pub fn trak(&self) -> Vec<u8> {
        let mut entries = 0;
        let mut rest = &self.entry[..];
        while let Some((size, _)) = rest.split_first_chunk::<4>() {
            rest = &rest[u32::from_be_bytes(*size) as usize..];
            entries += 1;
        }
        let stsd = boxed(b"stsd", &[&be(&[0, entries]), &self.entry]);
        let stbl = boxed(b"stbl", &[&stsd, &self.tables]);
        let mdhd = full(b"mdhd", &[0, 0, self.timescale, 0, 0]);
        let hdlr = boxed(b"hdlr", &[&[0; 8], &self.handler, &[0; 13]]);
        let mdia = boxed(b"mdia", &[&mdhd, &hdlr, &boxed(b"minf", &[&stbl])]);
        boxed(b"trak", &[&full(b"tkhd", &[0, 0, self.id, 0, 0]), &self.extra, &mdia])
    }
}

/// A file: `ftyp`, `moov` with these tracks, and the media data, whose first byte is at [`MDAT_AT`] plus the size of `moov`.
pub fn file(tracks: &[TestTrack], media: &[u8]) -> Vec<u8> {
    let traks: Vec<u8> = tracks.iter().flat_map(TestTrack::trak).collect();
    let ftyp = boxed(b"ftyp", &[b"isom", &[0; 4], b"isom"]);
    let moov = boxed(b"moov", &[&full(b"mvhd", &[0, 0, 1000, 0]), &traks]);
    [ftyp, boxed(b"mdat", &[media]), moov].concat()
}

/// Offset of the media data in a [`file`].
pub const MEDIA_AT: u32 = 28;

/// A video of `samples` samples of 100 bytes, 40 ms each, every tenth a sync sample.
pub fn plain_file(samples: u32) -> Vec<u8> {
    let syncs: Vec<u32> = (1..=samples).step_by(10).collect();
    let tables = [
        full(b"stts", &[1, samples, 40]),
        full(b"stss", &[&[syncs.len() as u32], &syncs[..]].concat()),
        full(b"stsc", &[1, 1, samples, 1]),
        full(b"stsz", &[100, samples]),
        full(b"stco", &[1, MEDIA_AT]),
    ];
    file(&[TestTrack::video(tables.concat())], &vec![7; samples as usize * 100])
}
