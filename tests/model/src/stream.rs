//! Finding a stream table entry (§3.3, §5.1).

use crate::bits::{align_down, field, keep, ones};
use crate::cache::config::{PointerCopy, SteCopy};
use crate::core::Core;
use crate::event::EventType;
use crate::fault::Fetch;
use crate::registers::{cr0, cr2};
use crate::route::Fault;
use crate::ste::{Ste, Vhe};
use crate::story::Origin;
use crate::violation::Rule;
use crate::watch::Use;

/// The stream table that the registers describe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamTable {
    pub(crate) base: u64,
    /// The effective LOG2SIZE: bits of a StreamID in range.
    pub(crate) log2_streams: u32,
    /// Bits resolved by the second level; `None`: a linear table.
    pub(crate) split: Option<u32>,
}

impl StreamTable {
    /// Reads STRTAB_BASE and STRTAB_BASE_CFG.
    pub(crate) fn new(base: u64, config: u32, sid_bits: u8, two_levels: bool) -> Self {
        let config = u64::from(config);
        let literal = field(config, 5, 0) as u32;
        let split = match field(config, 10, 6) as u32 {
            8 => 8,
            10 => 10,
            _ => 6,
        };
        let split = (two_levels && field(config, 17, 16) == 1).then_some(split);
        let align = match split {
            None => literal + 6,
            Some(split) => (literal.saturating_sub(split) + 3).max(6),
        };
        Self {
            base: align_down(keep(base, 55, 6), align),
            log2_streams: literal.min(u32::from(sid_bits)),
            split,
        }
    }
}

impl Core {
    pub(crate) fn stream_table(&self) -> StreamTable {
        StreamTable::new(
            self.registers.strtab_base,
            self.registers.strtab_base_cfg,
            self.id.sid_bits,
            self.id.st_level2,
        )
    }

    pub(crate) fn vhe(&self) -> Vhe {
        if self.registers.cr2 & cr2::E2H == 0 {
            Vhe::Off
        } else {
            Vhe::On
        }
    }

    /// The entry of `stream`, kept or fetched.
    pub(crate) fn stream_entry(&mut self, stream: u32) -> Result<(Ste, Origin), Fault> {
        if self.caches.config.ste(stream).is_none() {
            let copy = self.fetch_ste(stream)?;
            if !self.choices.remembers() {
                let ste = copy.decoded.map_err(|_| Fault::new(EventType::BadSte))?;
                return Ok((ste, copy.origin));
            }
            self.caches.config.stream_mut(stream).ste = Some(copy);
        }
        let copy = self
            .caches
            .config
            .ste(stream)
            .ok_or(Fault::new(EventType::BadSte))?;
        let ste = copy.decoded.map_err(|_| Fault::new(EventType::BadSte))?;
        Ok((ste, copy.origin))
    }

    /// Reads the entry of `stream` from memory.
    pub(crate) fn fetch_ste(&mut self, stream: u32) -> Result<SteCopy, Fault> {
        let pa = self.stream_entry_address(stream)?;
        let mut words = [0; 8];
        for (at, word) in words.iter_mut().enumerate() {
            let pa = pa + 8 * at as u64;
            *word = self
                .fetch(pa, Fetch::Stream)
                .map_err(|_| Fault::fetch(EventType::SteFetch, pa))?;
        }
        Ok(self.ste_copy(stream, pa, words))
    }

    /// A copy of an entry whose words were read at `pa`.
    pub(crate) fn ste_copy(&mut self, stream: u32, pa: u64, words: [u64; 8]) -> SteCopy {
        self.uses.note(pa, 64, Use::Ste { stream });
        let copy = SteCopy {
            words,
            decoded: Ste::decode(&words, &self.id, self.vhe())
                .map(|ste| ste.fetched_under(self.is_on(cr0::ATSCHK))),
            origin: Origin {
                pa,
                value: words[0],
                step: self.record.step(),
            },
        };
        self.check_reserved_ste(stream, &copy);
        copy
    }

    /// The physical address of the entry of `stream`.
    pub(crate) fn stream_entry_address(&mut self, stream: u32) -> Result<u64, Fault> {
        let table = self.stream_table();
        let bad = || Fault::new(EventType::BadStreamId);
        if u64::from(stream) >> table.log2_streams != 0 {
            return Err(bad());
        }
        let Some(split) = table.split else {
            return Ok(table.base + u64::from(stream) * 64);
        };
        let index = stream >> split;
        let at = table.base + u64::from(index) * 8;
        let descriptor = match self.caches.config.l1stds.get(&index) {
            Some(copy) => copy.word,
            None => self.fetch_l1std(index, at)?,
        };
        l1std_target(descriptor, split, stream).ok_or_else(bad)
    }

    fn fetch_l1std(&mut self, index: u32, at: u64) -> Result<u64, Fault> {
        let word = self
            .fetch(at, Fetch::Stream)
            .map_err(|_| Fault::fetch(EventType::SteFetch, at))?;
        self.uses.note(at, 8, Use::L1Std { index });
        if word & !0x00ff_ffff_ffff_ffdf != 0 {
            self.violate(
                Rule::EntryReservedBits,
                format!("L1STD {word:#x} at {at:#x}"),
            );
        }
        let span = field(word, 4, 0) as u32;
        if (1..=11).contains(&span) && keep(word, 55, 6) & ones(span + 5) != 0 {
            self.violate(
                Rule::TableMisaligned,
                format!("the array of L1STD {word:#x} at {at:#x}"),
            );
        }
        if self.choices.remembers() {
            let origin = Origin {
                pa: at,
                value: word,
                step: self.record.step(),
            };
            self.caches
                .config
                .l1stds
                .insert(index, PointerCopy { word, origin });
        }
        Ok(word)
    }
}

/// Where a level-1 descriptor says that the entry of `stream` lies; `None`: nowhere (§5.1).
pub(crate) fn l1std_target(descriptor: u64, split: u32, stream: u32) -> Option<u64> {
    let span = field(descriptor, 4, 0) as u32;
    if span == 0 || span > 11 || span > split + 1 {
        return None;
    }
    let low = u64::from(stream) & ((1 << split) - 1);
    if low >> (span - 1) != 0 {
        return None;
    }
    let array = align_down(keep(descriptor, 55, 6), 6 + span - 1);
    Some(array + low * 64)
}
