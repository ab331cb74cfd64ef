//! `bpf(2)` behind safe faces: maps, programs, links.
//!
//! The attributes are those of `union bpf_attr` in linux/bpf.h, each up to its last field that is used here: the kernel takes what is
//! missing for zero. Descriptors are closed on exec by the kernel's own choice.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::asm::Instruction;

/// Commands, map types and the like, by their numbers in linux/bpf.h.
mod number {
    pub const MAP_CREATE: libc::c_long = 0;
    pub const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub const MAP_DELETE_ELEM: libc::c_long = 3;
    pub const PROG_LOAD: libc::c_long = 5;
    #[cfg(test)]
    pub const PROG_TEST_RUN: libc::c_long = 10;
    pub const LINK_CREATE: libc::c_long = 28;
    pub const PROG_TYPE_XDP: u32 = 6;
    pub const ATTACH_XDP: u32 = 37;
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum MapType {
    Hash = 1,
    Array = 2,
    Xsk = 17,
}

/// Flags of a link to an interface, linux/if_link.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum LinkMode {
    /// `XDP_FLAGS_SKB_MODE`
    Generic = 1 << 1,
    /// `XDP_FLAGS_DRV_MODE`
    Driver = 1 << 2,
}

const NAME_BYTES: usize = 16;
/// Enough for the verifier's complaint and what led to it.
const LOG_BYTES: usize = 256 << 10;
/// The loader repeats on EAGAIN: the verifier gives up when a signal is pending.
const AGAIN_MAX: usize = 5;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME_BYTES],
}

#[repr(C)]
struct MapElement {
    map: i32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_BYTES],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: i32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[cfg(test)]
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: i32,
    verdict: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
}

fn address<T>(value: &[T]) -> u64 {
    value.as_ptr() as u64
}

fn name(text: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    // The last byte stays zero.
    for (to, from) in name.iter_mut().take(NAME_BYTES - 1).zip(text.bytes()) {
        *to = from;
    }
    name
}

/// The call; `attributes` is one of the structures above, whose pointers are good until it returns.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a plain structure of the size that is told, laid out as the kernel expects for this command; each pointer in
    // it was made from a slice that the caller still borrows, with that slice's length, or the map's sizes, beside it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the command that returned it has just made it, for nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A map whose keys and values have fixed sizes.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    key_bytes: usize,
    value_bytes: usize,
}

impl Map {
    /// A new, empty map.
    pub(super) fn new(kind: MapType, text: &str, key_bytes: u32, value_bytes: u32, entries: u32) -> io::Result<Self> {
        let mut attributes =
            MapCreate { map_type: kind as u32, key_bytes, value_bytes, entries, flags: 0, inner_map: 0, numa_node: 0, name: name(text) };
        let fd = owned(bpf(number::MAP_CREATE, &mut attributes)?);
        Ok(Self { fd, key_bytes: key_bytes as usize, value_bytes: value_bytes as usize })
    }

    pub(super) fn as_raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Keys and values of other sizes than the map's would make the kernel read beyond them.
    fn element(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<MapElement> {
        if key.len() != self.key_bytes || value.is_some_and(|value| value.len() != self.value_bytes) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(MapElement { map: self.as_raw(), padding: 0, key: address(key), value: value.map_or(0, address), flags: 0 })
    }

    /// Sets the value of a key.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        bpf(number::MAP_UPDATE_ELEM, &mut self.element(key, Some(value))?).map(drop)
    }

    /// Removes a key; `NotFound` when it is not there.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        bpf(number::MAP_DELETE_ELEM, &mut self.element(key, None)?).map(drop)
    }

    /// Reads the value of a key into `value`.
    pub(super) fn get(&self, key: &[u8], value: &mut [u8]) -> io::Result<()> {
        let mut element = self.element(key, Some(value))?;
        // Made again from the exclusive borrow, because the kernel writes through it.
        element.value = value.as_mut_ptr() as u64;
        bpf(number::MAP_LOOKUP_ELEM, &mut element).map(drop)
    }
}

/// Why a program was not loaded.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) source: io::Error,
    /// What the verifier said, if it got that far.
    pub(super) log: String,
}

/// A loaded XDP program.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Loads a program. A second try, with the verifier's log, follows a refusal.
    pub(super) fn load(text: &str, instructions: &[Instruction]) -> Result<Self, Refusal> {
        let first = match Self::load_once(text, instructions, &mut []) {
            Ok(program) => return Ok(program),
            Err(error) => error,
        };
        let mut log = vec![0; LOG_BYTES];
        match Self::load_once(text, instructions, &mut log) {
            Ok(program) => Ok(program),
            Err(_) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                log.truncate(end);
                Err(Refusal { source: first, log: String::from_utf8_lossy(&log).into_owned() })
            }
        }
    }

    fn load_once(text: &str, instructions: &[Instruction], log: &mut [u8]) -> io::Result<Self> {
        let mut attributes = ProgramLoad {
            program_type: number::PROG_TYPE_XDP,
            instruction_count: instructions.len() as u32,
            instructions: address(instructions),
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_bytes: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: 0,
            name: name(text),
            interface: 0,
            attach_type: number::ATTACH_XDP,
        };
        for _ in 0..AGAIN_MAX {
            match bpf(number::PROG_LOAD, &mut attributes) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                loaded => return loaded.map(|fd| Self { fd: owned(fd) }),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Attaches the program to an interface for as long as the descriptor is open.
    pub(super) fn attach(&self, interface: u32, mode: LinkMode) -> io::Result<OwnedFd> {
        let mut attributes = LinkCreate { program: self.fd.as_raw_fd(), interface, attach_type: number::ATTACH_XDP, flags: mode as u32 };
        bpf(number::LINK_CREATE, &mut attributes).map(owned)
    }

    /// Runs the program on a frame as if it had arrived on queue 0 of the loopback interface; answers its verdict.
    #[cfg(test)]
    pub(super) fn run(&self, frame: &[u8]) -> io::Result<u32> {
        let mut attributes = TestRun {
            program: self.fd.as_raw_fd(),
            data_in_bytes: frame.len() as u32,
            data_in: address(frame),
            repeat: 1,
            ..TestRun::default()
        };
        bpf(number::PROG_TEST_RUN, &mut attributes)?;
        Ok(attributes.verdict)
    }
}

/// Puts a socket into a map of sockets.
pub(super) fn set_socket(map: &Map, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    map.set(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
}
