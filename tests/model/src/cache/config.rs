//! Copies of stream table entries and context descriptors, and of what leads to them (§3.21.2).

use rustc_hash::FxHashMap;

use crate::ste::{Illegal, Ste};
use crate::story::Origin;

/// A copy of a stream table entry, legal or not.
#[derive(Clone, Debug)]
pub(crate) struct SteCopy {
    pub(crate) words: [u64; 8],
    pub(crate) decoded: Result<Ste, Illegal>,
    pub(crate) origin: Origin,
}

/// A copy of a context descriptor; whether it is legal depends on the entry it is used through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CdCopy {
    pub(crate) words: [u64; 8],
    pub(crate) origin: Origin,
}

/// A copy of a level-1 descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PointerCopy {
    pub(crate) word: u64,
    pub(crate) origin: Origin,
}

/// What is kept for one StreamID.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamCopies {
    pub(crate) ste: Option<SteCopy>,
    pub(crate) l1cds: FxHashMap<u32, PointerCopy>,
    pub(crate) cds: FxHashMap<u32, CdCopy>,
}

impl StreamCopies {
    fn count(&self) -> usize {
        usize::from(self.ste.is_some()) + self.l1cds.len() + self.cds.len()
    }
}

/// All configuration copies.
#[derive(Debug, Default)]
pub(crate) struct ConfigCache {
    pub(crate) l1stds: FxHashMap<u32, PointerCopy>,
    pub(crate) streams: FxHashMap<u32, StreamCopies>,
}

impl ConfigCache {
    pub(crate) fn ste(&self, stream: u32) -> Option<&SteCopy> {
        self.streams.get(&stream)?.ste.as_ref()
    }

    pub(crate) fn cd(&self, stream: u32, substream: u32) -> Option<&CdCopy> {
        self.streams.get(&stream)?.cds.get(&substream)
    }

    pub(crate) fn l1cd(&self, stream: u32, index: u32) -> Option<&PointerCopy> {
        self.streams.get(&stream)?.l1cds.get(&index)
    }

    pub(crate) fn stream_mut(&mut self, stream: u32) -> &mut StreamCopies {
        self.streams.entry(stream).or_default()
    }

    /// CFGI_STE: the entry and all that was fetched through it.
    pub(crate) fn forget_stream(&mut self, stream: u32) -> usize {
        self.streams
            .remove(&stream)
            .map_or(0, |copies| copies.count())
    }

    /// CFGI_CD_ALL.
    pub(crate) fn forget_contexts(&mut self, stream: u32) -> usize {
        let Some(copies) = self.streams.get_mut(&stream) else {
            return 0;
        };
        let count = copies.cds.len() + copies.l1cds.len();
        copies.cds.clear();
        copies.l1cds.clear();
        count
    }

    /// How many copies there are.
    pub(crate) fn count(&self) -> usize {
        self.l1stds.len()
            + self
                .streams
                .values()
                .map(StreamCopies::count)
                .sum::<usize>()
    }

    /// Everything.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.count();
        self.l1stds.clear();
        self.streams.clear();
        count
    }
}
