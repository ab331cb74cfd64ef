//! Fuzz target `send_rtsp`: any bytes from a client of the testbed's own sender, whole and cut in two. However they are cut, the answers
//! are the same.

use crate::send::rtsp::{Connection, Event, Facts, Identity};

fn feed(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Event>, bool) {
    let facts = Facts { sdp: "v=0\r\n".into(), rtp_port: 6000 };
    let mut connection = Connection::new(Identity::of(1));
    let (mut output, mut events) = (Vec::new(), Vec::new());
    let read = chunks.iter().all(|chunk| connection.on_bytes(chunk, &facts, &mut output, &mut |e| events.push(e)).is_ok());
    connection.torn_down(&mut output);
    (output, events, read)
}

/// Runs one input: the first byte says where the rest is cut.
pub fn run(data: &[u8]) {
    let Some((&at, input)) = data.split_first() else { return };
    let (head, tail) = input.split_at(usize::from(at).min(input.len()));
    let whole = feed(&[input]);
    let cut = feed(&[head, tail]);
    assert_eq!(whole, cut);
}
