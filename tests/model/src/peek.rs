//! Looking at memory as it is now, past every cache and without leaving a trace: what is reachable.

use crate::bits::{align_down, bit, keep};
use crate::cd::Cd;
use crate::core::Core;
use crate::descriptor::Descriptor;
use crate::format::Granule;
use crate::registers::cr0;
use crate::ste::{Stage2, Ste};
use crate::stream::l1std_target;
use crate::substream::{first_level, split};

impl Core {
    pub(crate) fn peek(&self, pa: u64) -> Option<u64> {
        self.memory.read64(pa & !7).ok()
    }

    fn peek_words(&self, pa: u64) -> Option<[u64; 8]> {
        let mut words = [0; 8];
        for (at, word) in words.iter_mut().enumerate() {
            *word = self.peek(pa + 8 * at as u64)?;
        }
        Some(words)
    }

    /// Where the entry of `stream` lies now, if the table is in use.
    pub(crate) fn peek_ste_address(&self, stream: u32) -> Option<u64> {
        let table = self.stream_table();
        if !self.is_on(cr0::SMMUEN) || u64::from(stream) >> table.log2_streams != 0 {
            return None;
        }
        let Some(split) = table.split else {
            return Some(table.base + u64::from(stream) * 64);
        };
        l1std_target(
            self.peek(table.base + u64::from(stream >> split) * 8)?,
            split,
            stream,
        )
    }

    /// The entry of `stream` now, if it is valid and legal.
    pub(crate) fn peek_ste(&self, stream: u32) -> Option<Ste> {
        let words = self.peek_words(self.peek_ste_address(stream)?)?;
        Ste::decode(&words, &self.id, self.vhe()).ok()
    }

    /// Where the context descriptor lies now.
    pub(crate) fn peek_cd_address(&self, ste: &Ste, substream: u32) -> Option<u64> {
        let s1 = ste.stage1.as_ref()?;
        if substream >> s1.log2_contexts != 0 {
            return None;
        }
        let first = first_level(s1, substream);
        let at = match split(s1) {
            None => first,
            Some(split) => {
                let word = self.peek(self.peek_through(ste, first)?)?;
                let pointer = keep(word, 55, 6 + split);
                bit(word, 0)
                    .then_some(pointer + (u64::from(substream) & ((1 << split) - 1)) * 64)?
            }
        };
        self.peek_through(ste, at)
    }

    /// Where the level-1 descriptor with this index lies now.
    pub(crate) fn peek_l1cd_address(&self, ste: &Ste, index: u32) -> Option<u64> {
        let s1 = ste.stage1.as_ref()?;
        let first = first_level(s1, index << split(s1)?);
        self.peek_through(ste, first)
    }

    /// Its words now.
    pub(crate) fn peek_cd_words(&self, ste: &Ste, substream: u32) -> Option<[u64; 8]> {
        self.peek_words(self.peek_cd_address(ste, substream)?)
    }

    /// The context descriptor now, if it is valid and legal.
    pub(crate) fn peek_cd(&self, stream: u32, substream: u32) -> Option<(Ste, Cd, [u64; 8])> {
        let ste = self.peek_ste(stream)?;
        let words = self.peek_cd_words(&ste, substream)?;
        let cd = Cd::decode(&words, &self.id, ste.world, ste.stage1?.forbids_stalls).ok()?;
        Some((ste, cd, words))
    }

    /// Through stage 2, where that is on.
    pub(crate) fn peek_through(&self, ste: &Ste, at: u64) -> Option<u64> {
        match &ste.stage2 {
            None => Some(at),
            Some(s2) => self.peek_stage2(s2, at),
        }
    }

    /// Where stage 2 leads now.
    pub(crate) fn peek_stage2(&self, s2: &Stage2, ipa: u64) -> Option<u64> {
        self.peek_walk2(s2, ipa, None).ok()
    }

    /// Walks stage 2 for `ipa`. `Ok`: where it leads. `Err`: where the walk stopped, which is the
    /// descriptor at level `until` if it comes so far, `None` if an invalid one ends it earlier.
    pub(crate) fn peek_walk2(
        &self,
        s2: &Stage2,
        ipa: u64,
        until: Option<u32>,
    ) -> Result<u64, Option<u64>> {
        let root = s2.shape.root;
        if ipa >> root.input_bits != 0 {
            return Err(None);
        }
        let (mut table, mut level) = (s2.root, root.level);
        loop {
            let at = table + root.index(ipa, level) * 8;
            if until == Some(level) {
                return Err(Some(at));
            }
            let word = self.peek(at).ok_or(None)?;
            let word = if s2.is_big_endian {
                word.swap_bytes()
            } else {
                word
            };
            match Descriptor::new(word, root.granule, level, s2.output_bits) {
                Descriptor::Invalid => return Err(None),
                Descriptor::Table { address } => (table, level) = (address, level + 1),
                Descriptor::Leaf(leaf) => {
                    return Ok(align_down(leaf.address, leaf.log2) | ipa & ((1 << leaf.log2) - 1));
                }
            }
        }
    }

    /// The physical address of the stage-1 descriptor for `va` at `level`, and the granule, if a
    /// walk through the context descriptor comes so far now.
    pub(crate) fn peek_walk1(
        &self,
        stream: u32,
        substream: u32,
        va: u64,
        until: u32,
    ) -> Option<(u64, Granule)> {
        let (ste, cd, _) = self.peek_cd(stream, substream)?;
        let is_upper = bit(va, 55) && cd.upper.is_some();
        let half = if is_upper { cd.upper? } else { cd.lower };
        half.canonical(va, is_upper)?;
        let (root, first) = half.table?;
        let (mut table, mut level) = (first, root.level);
        loop {
            let at = self.peek_through(&ste, table + root.index(va, level) * 8)?;
            if level == until {
                return Some((at, root.granule));
            }
            let word = self.peek(at)?;
            let word = if cd.is_big_endian {
                word.swap_bytes()
            } else {
                word
            };
            match Descriptor::new(word, root.granule, level, cd.output_bits) {
                Descriptor::Table { address } => (table, level) = (address, level + 1),
                _ => return None,
            }
        }
    }
}
