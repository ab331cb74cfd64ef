//! The `Range` header (RFC 2326 sections 3.6 and 12.29): normal play time in all its forms.
//!
//! `npt=10-20`, `npt=10-`, `npt=-20` (from the position), `npt=now-`, `npt=0:01:10.5-`. Times are whole nanoseconds. Other units (`smpte`,
//! `clock`) are answered 501: section 12.29 says so of a time format that is not understood. The `time` parameter, the moment at which the
//! request should take effect, is ignored.

/// Most digits after the decimal point that count: nanoseconds.
const FRACTION_DIGITS: usize = 9;
const NS_PER_S: u64 = 1_000_000_000;

/// Where a range starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where play stopped: `now`, or no start given.
    Position,
    /// Normal play time, nanoseconds.
    Npt(u64),
}

/// A range of normal play time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NptRange {
    /// Where it starts.
    pub start: Start,
    /// Where it ends, nanoseconds of normal play time; `None` for the end of the title.
    pub end_ns: Option<u64>,
}

/// Why a `Range` cannot be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A unit other than npt: 501.
    #[error("only npt ranges are understood")]
    Unit,
    /// Not of the form that the unit prescribes: 457.
    #[error("malformed npt range")]
    Malformed,
    /// Several ranges in one header (an edit list): 457.
    #[error("only one range at a time can be played")]
    Several,
    /// It ends where or before it starts: 457.
    #[error("the range ends before it starts")]
    Reversed,
    /// It starts at or after the end of the title: 457.
    #[error("the range starts beyond the end")]
    BeyondEnd,
}

/// Reads a `Range` header.
pub fn parse(header: &str) -> Result<NptRange, RangeError> {
    let specifier = header.split(';').next().unwrap_or_default().trim();
    let (unit, range) = specifier.split_once('=').ok_or(RangeError::Malformed)?;
    if !unit.trim().eq_ignore_ascii_case("npt") {
        return Err(RangeError::Unit);
    }
    if range.contains(',') {
        return Err(RangeError::Several);
    }
    // Players also send a lone start without the hyphen.
    let (start, end) = range.split_once('-').unwrap_or((range, ""));
    let (start, end) = (start.trim(), end.trim());
    if start.is_empty() && end.is_empty() {
        return Err(RangeError::Malformed);
    }
    let start = if start.is_empty() || start.eq_ignore_ascii_case("now") { Start::Position } else { Start::Npt(time(start)?) };
    let end_ns = if end.is_empty() { None } else { Some(time(end)?) };
    match (start, end_ns) {
        (Start::Npt(start_ns), Some(end_ns)) if end_ns <= start_ns => Err(RangeError::Reversed),
        _ => Ok(NptRange { start, end_ns }),
    }
}

impl NptRange {
    /// Fits the range to a title: a start beyond its end is an error, an end beyond it means its end.
    pub fn within(self, duration_ns: u64) -> Result<Self, RangeError> {
        match self.start {
            Start::Npt(start_ns) if start_ns > 0 && start_ns >= duration_ns => Err(RangeError::BeyondEnd),
            _ => Ok(Self { end_ns: self.end_ns.filter(|end_ns| *end_ns < duration_ns), ..self }),
        }
    }
}

/// A time as seconds with a fraction, for headers and SDP: at least three digits after the point, at most six, rounded down.
pub fn seconds(time_ns: u64) -> String {
    let micros = time_ns / 1_000;
    let (s, micros) = (micros / 1_000_000, micros % 1_000_000);
    if micros % 1_000 == 0 { format!("{s}.{:03}", micros / 1_000) } else { format!("{s}.{micros:06}") }
}

/// `npt-sec` or `npt-hhmmss`, nanoseconds. What is too large for that saturates (and lies beyond any title).
fn time(text: &str) -> Result<u64, RangeError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut fields = whole.split(':');
    let mut seconds = 0_u64;
    let mut count = 0_u32;
    for field in fields.by_ref().take(3) {
        let value = if field.is_empty() && whole.is_empty() && !fraction.is_empty() { 0 } else { digits(field)? };
        if count > 0 && value > 59 {
            return Err(RangeError::Malformed);
        }
        seconds = seconds.saturating_mul(60).saturating_add(value);
        count += 1;
    }
    if count == 2 || fields.next().is_some() {
        return Err(RangeError::Malformed);
    }
    let mut nanoseconds = 0_u64;
    for i in 0..FRACTION_DIGITS {
        let digit = fraction.as_bytes().get(i).map_or(0, |b| u64::from(b.wrapping_sub(b'0')));
        nanoseconds = nanoseconds.saturating_mul(10).saturating_add(digit);
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(seconds.saturating_mul(NS_PER_S).saturating_add(nanoseconds))
}

fn digits(text: &str) -> Result<u64, RangeError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(text.bytes().fold(0_u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start_ns: u64, end_ns: Option<u64>) -> Result<NptRange, RangeError> {
        Ok(NptRange { start: Start::Npt(start_ns), end_ns })
    }

    #[test]
    fn all_forms_of_npt_are_read() {
        const S: u64 = NS_PER_S;
        for (header, expected) in [
            ("npt=0-", range(0, None)),
            ("npt=0.000-", range(0, None)),
            ("npt=10-20", range(10 * S, Some(20 * S))),
            ("NPT = 1.5 - 2.25", range(3 * S / 2, Some(9 * S / 4))),
            ("npt=0:01:10.5-", range(141 * S / 2, None)),
            ("npt=100:00:00-100:00:01", range(360_000 * S, Some(360_001 * S))),
            ("npt=now-", Ok(NptRange { start: Start::Position, end_ns: None })),
            ("npt=now-20", Ok(NptRange { start: Start::Position, end_ns: Some(20 * S) })),
            ("npt=-20", Ok(NptRange { start: Start::Position, end_ns: Some(20 * S) })),
            ("npt=7", range(7 * S, None)),
            ("npt=7.-", range(7 * S, None)),
            ("npt=.5-", range(S / 2, None)),
            ("npt=0.1234567899-", range(123_456_789, None)),
            ("npt=5-;time=19970123T143720Z", range(5 * S, None)),
            ("npt=99999999999999999999999-", range(u64::MAX, None)),
            ("npt=20-10", Err(RangeError::Reversed)),
            ("npt=5-5", Err(RangeError::Reversed)),
            ("npt=-", Err(RangeError::Malformed)),
            ("npt=", Err(RangeError::Malformed)),
            ("npt", Err(RangeError::Malformed)),
            ("npt=a-b", Err(RangeError::Malformed)),
            ("npt=1:10-", Err(RangeError::Malformed)),
            ("npt=0:60:00-", Err(RangeError::Malformed)),
            ("npt=1:2:3:4-", Err(RangeError::Malformed)),
            ("npt=1.2.3-", Err(RangeError::Malformed)),
            ("npt=-5-10", Err(RangeError::Malformed)),
            ("npt=0--5", Err(RangeError::Malformed)),
            ("npt=.-", Err(RangeError::Malformed)),
            ("npt=1-2,npt=5-6", Err(RangeError::Several)),
            ("smpte=10:12:33:20-", Err(RangeError::Unit)),
            ("smpte-30-drop=10:12:33:20-", Err(RangeError::Unit)),
            ("clock=19961108T142300Z-", Err(RangeError::Unit)),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn ranges_are_fitted_to_the_title() {
        let cut = |header: &str, duration_s: u64| parse(header).and_then(|range| range.within(duration_s * NS_PER_S));
        assert_eq!(cut("npt=10-", 10), Err(RangeError::BeyondEnd));
        assert_eq!(cut("npt=9-20", 10), range(9 * NS_PER_S, None));
        assert_eq!(cut("npt=0-5", 10), range(0, Some(5 * NS_PER_S)));
        assert_eq!(cut("npt=0-", 0), range(0, None));
        assert_eq!(cut("npt=now-", 10), Ok(NptRange { start: Start::Position, end_ns: None }));
    }

    #[test]
    fn times_are_written_with_the_digits_they_need() {
        for (ns, text) in
            [(0, "0.000"), (1_500_000_000, "1.500"), (10_010_000_999, "10.010"), (40_000, "0.000040"), (u64::MAX, "18446744073.709551")]
        {
            assert_eq!(seconds(ns), text);
        }
    }

    proptest! {
        #[test]
        fn written_times_are_read_back(start_us in 0_u64..1 << 50, length_us in 1_u64..1 << 50) {
            let (start_ns, end_ns) = (start_us * 1_000, (start_us + length_us) * 1_000);
            prop_assert_eq!(parse(&format!("npt={}-{}", seconds(start_ns), seconds(end_ns))), range(start_ns, Some(end_ns)));
            let (h, rest) = (start_us / 3_600_000_000, start_us % 3_600_000_000);
            let clock = format!("npt={h}:{:02}:{:02}.{:06}-", rest / 60_000_000, rest / 1_000_000 % 60, rest % 1_000_000);
            prop_assert_eq!(parse(&clock), range(start_ns, None));
        }

        #[test]
        fn any_text_gives_a_sound_range(header in "(npt=|now|-|:|\\.|;|,|[0-9]{1,24}|\\PC){0,10}", duration_ns in any::<u64>()) {
            if let Ok(range) = parse(&header).and_then(|range| range.within(duration_ns)) {
                if let (Start::Npt(start_ns), Some(end_ns)) = (range.start, range.end_ns) {
                    prop_assert!(start_ns < end_ns);
                }
                prop_assert!(range.end_ns.is_none_or(|end_ns| end_ns < duration_ns));
            }
        }
    }
}
