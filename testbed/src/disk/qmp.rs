//! As much of QEMU's machine protocol (QMP: JSON, a message per line) as it takes to change a throttle group while it works.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The daemon may take so long for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A message longer than this is none of what is asked for here.
const MESSAGE_MAX: u64 = 1 << 20;

/// A connection to a daemon's monitor. The daemon serves one at a time.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects and greets.
    ///
    /// # Errors
    /// Nobody listens, or it is no monitor.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        let greeting = monitor.read()?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other(format!("no QMP greeting: {greeting}")));
        }
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Executes a command and returns what it returns.
    ///
    /// # Errors
    /// The daemon refuses, with its words, or does not answer.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let message = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{message}")?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("{command}: {}", error.get("desc").unwrap_or(error))));
            }
            // Anything else is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        io::Read::take(&mut self.stream, MESSAGE_MAX).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A monitor that says `lines` in turn, each after a line heard (the first at once), and returns what it heard.
    fn talk(lines: &'static [&'static str], client: impl FnOnce(io::Result<Monitor>)) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            let mut heard = Vec::new();
            for line in lines {
                stream.write_all(line.as_bytes()).unwrap();
                let mut request = String::new();
                if input.read_line(&mut request).unwrap_or(0) > 0 {
                    heard.push(request);
                }
            }
            heard
        });
        client(Monitor::connect(&path));
        server.join().unwrap()
    }

    #[test]
    fn events_are_passed_over_and_errors_told() {
        let heard = talk(
            &[
                "{\"QMP\": {}}\r\n",
                "{\"return\": {}}\r\n",
                "{\"event\": \"X\"}\r\n{\"return\": 7}\r\n",
                "{\"error\": {\"desc\": \"no such\"}}\r\n",
            ],
            |monitor| {
                let mut monitor = monitor.unwrap();
                assert_eq!(monitor.execute("one", &json!({"a": 1})).unwrap(), json!(7));
                assert!(monitor.execute("two", &json!({})).unwrap_err().to_string().contains("no such"));
            },
        );
        assert_eq!(serde_json::from_str::<Value>(&heard[1]).unwrap(), json!({"execute": "one", "arguments": {"a": 1}}));
    }

    #[test]
    fn what_is_no_monitor_is_an_error() {
        talk(&["hello\n"], |monitor| assert!(monitor.is_err()));
        talk(&["{\"return\": {}}\n"], |monitor| assert!(monitor.is_err()));
        assert!(Monitor::connect(Path::new("/no/such/socket")).is_err());
    }
}
