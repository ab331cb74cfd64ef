//! Congestion control: NewReno and CUBIC behind one face.

/// Which congestion control a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 5681 and RFC 6582.
    NewReno,
    /// RFC 9438.
    Cubic,
}
