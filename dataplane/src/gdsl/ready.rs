//! For tests of modules: a link whose blocks are here already.

use hugepages::{Arena, ChunkPool};

use super::blocks::{Acquired, BlockKey, Blocks};
use super::{Link, LinkView};
use crate::disks::sim::SimFile;
use crate::disks::{DiskError, ReadDone};

/// A link with blocks of a file.
pub(crate) struct ReadyLink {
    link: Link,
    blocks: Blocks,
}

/// How a block ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Read,
    Reading,
    Failed,
}

impl ReadyLink {
    /// The blocks at these offsets of `file`.
    pub(crate) fn new(file: &SimFile, block_bytes: usize, wanted: &[(u64, End)]) -> Self {
        let pool = ChunkPool::new(Arena::new((wanted.len() + 1) * block_bytes).expect("memory"), block_bytes);
        let (mut link, mut blocks) = (Link::new(wanted.len()), Blocks::new(pool, 0));
        for &(offset, end) in wanted {
            match blocks.acquire(BlockKey { file: file.id(), offset }, file, block_bytes) {
                Acquired::New(block, mut read) => {
                    link.push(offset, block);
                    if end != End::Reading {
                        let result = if end == End::Read { Ok(file.fill(offset, &mut read.chunk)) } else { Err(DiskError::Os(5)) };
                        blocks.complete(ReadDone { tag: read.tag, chunk: read.chunk, result });
                    }
                }
                Acquired::Shared(block) | Acquired::Kept(block) => link.push(offset, block),
                Acquired::NoChunk => panic!("a chunk for each block"),
            }
        }
        Self { link, blocks }
    }

    pub(crate) fn view(&self) -> LinkView<'_> {
        LinkView { link: &self.link, blocks: &self.blocks }
    }
}
