//! What a receiver needs of RTSP 1.0 on the wire (RFC 2326): cutting a byte stream into responses, requests of the server and interleaved
//! frames. Written for this testbed alone, so that a mistake in the server's own parser cannot hide itself.

/// A message head longer than this is refused.
const HEAD_MAX: usize = 16 * 1024;
/// A message body longer than this is refused.
const BODY_MAX: usize = 1024 * 1024;

/// Why a connection cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// No end of the head in sight.
    #[error("the server sent a message head of more than {HEAD_MAX} bytes")]
    HeadTooLong,
    /// The body is too long, or its length is no number.
    #[error("the server sent a Content-Length that is no number up to {BODY_MAX}")]
    BodyLength,
    /// Neither a status line nor a request line.
    #[error("the server sent a line that starts no RTSP message")]
    StartLine,
}

/// A message from the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The status code of a response, `None` for a request.
    pub status: Option<u16>,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The `CSeq` header.
    pub fn cseq(&self) -> Option<u32> {
        self.header("CSeq")?.parse().ok()
    }
}

/// One thing cut from the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A response or a request of the server.
    Message(Message),
    /// RFC 2326 10.12: a frame of a channel.
    Frame(u8, &'a [u8]),
}

/// Cuts a stream into items; holds what is incomplete.
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes and hands every complete item to `on`.
    ///
    /// # Errors
    /// The stream cannot be read on.
    pub fn feed(&mut self, input: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<(), Broken> {
        if self.held.is_empty() {
            let used = cut_all(input, on)?;
            self.held.extend_from_slice(input.get(used..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(input);
            let used = cut_all(&self.held, on)?;
            self.held.drain(..used);
        }
        Ok(())
    }
}

fn cut_all(input: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, Broken> {
    let mut used = 0;
    while let Some((item, length)) = cut(input.get(used..).unwrap_or_default())? {
        used += length;
        if let Some(item) = item {
            on(item);
        }
    }
    Ok(used)
}

/// The first item and the bytes that it takes; no item where only blank lines are skipped.
fn cut(input: &[u8]) -> Result<Option<(Option<Item<'_>>, usize)>, Broken> {
    match input.first() {
        None => Ok(None),
        Some(b'\r' | b'\n') => Ok(Some((None, 1))),
        Some(b'$') => {
            let Some(&[_, channel, high, low]) = input.first_chunk::<4>() else { return Ok(None) };
            let length = 4 + usize::from(u16::from_be_bytes([high, low]));
            Ok(input.get(4..length).map(|payload| (Some(Item::Frame(channel, payload)), length)))
        }
        Some(_) => cut_message(input),
    }
}

fn cut_message(input: &[u8]) -> Result<Option<(Option<Item<'_>>, usize)>, Broken> {
    let Some(head_length) = head_end(input.get(..HEAD_MAX.min(input.len())).unwrap_or_default()) else {
        return if input.len() >= HEAD_MAX { Err(Broken::HeadTooLong) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(input.get(..head_length).unwrap_or_default());
    let mut lines = head.lines();
    let start = lines.next().unwrap_or_default();
    let mut words = start.split_ascii_whitespace();
    let (first, second, third) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let status = match second.parse() {
        Ok(status) if first.starts_with("RTSP/") => Some(status),
        _ if third.starts_with("RTSP/") => None,
        _ => return Err(Broken::StartLine),
    };
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).collect();
    let mut message = Message { status, headers, body: Vec::new() };
    let body_length = match message.header("Content-Length") {
        None => 0,
        Some(text) => text.parse().ok().filter(|&n: &usize| n <= BODY_MAX).ok_or(Broken::BodyLength)?,
    };
    let Some(body) = input.get(head_length..head_length + body_length) else { return Ok(None) };
    message.body = body.to_vec();
    Ok(Some((Some(Item::Message(message)), head_length + body_length)))
}

/// Where the blank line after the head ends.
fn head_end(input: &[u8]) -> Option<usize> {
    input.iter().enumerate().filter(|(_, b)| **b == b'\n').find_map(|(at, _)| match input.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 5\r\n\r\nhello\
        $\x01\x00\x03abc\r\n\
        OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n\
        RTSP/1.0 453 Not Enough Bandwidth\ncseq:4\n\n$\x00\x00\x00";

    fn collect(chunks: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, &mut |item| {
                found.push(match item {
                    Item::Message(m) => format!("{:?} {:?} {}", m.status, m.cseq(), String::from_utf8_lossy(&m.body)),
                    Item::Frame(channel, payload) => format!("{channel} {}", String::from_utf8_lossy(payload)),
                });
            })?;
        }
        Ok(found)
    }

    #[test]
    fn any_cut_gives_the_same_items() {
        let whole = collect(&[STREAM]).unwrap();
        assert_eq!(whole, ["Some(200) Some(3) hello", "1 abc", "None Some(9) ", "Some(453) Some(4) ", "0 "]);
        for at in 0..STREAM.len() {
            assert_eq!(collect(&[&STREAM[..at], &STREAM[at..]]).unwrap(), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(collect(&single).unwrap(), whole);
    }

    #[test]
    fn what_cannot_be_read_on_is_an_error() {
        assert_eq!(collect(&[b"HTTP/1.1 200 OK\r\n\r\n"]), Err(Broken::StartLine));
        assert_eq!(collect(&[b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n"]), Err(Broken::BodyLength));
        assert_eq!(collect(&[&[b'a'; HEAD_MAX + 1]]), Err(Broken::HeadTooLong));
    }

    #[test]
    fn any_bytes_are_survived() {
        use proptest::prelude::*;
        proptest!(|(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20))| {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = collect(&chunks);
        });
    }
}
