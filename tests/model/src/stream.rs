//! Finding a stream table entry (§3.3, §5.1).

use crate::bits::{align_down, field, keep};
use crate::core::Core;
use crate::event::EventType;
use crate::fault::Fetch;
use crate::registers::cr2;
use crate::ste::{Ste, Vhe};
use crate::story::Origin;
use crate::translate::Fault;

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

    /// The entry of `stream`.
    pub(crate) fn stream_entry(&mut self, stream: u32) -> Result<(Ste, Origin), Fault> {
        let pa = self.stream_entry_address(stream)?;
        let mut words = [0; 8];
        for (at, word) in words.iter_mut().enumerate() {
            let pa = pa + 8 * at as u64;
            *word = self
                .fetch(pa, Fetch::Stream)
                .map_err(|_| Fault::fetch(EventType::SteFetch, pa))?;
        }
        let origin = Origin {
            pa,
            value: words[0],
            step: self.record.step(),
        };
        let ste =
            Ste::decode(&words, &self.id, self.vhe()).map_err(|_| Fault::new(EventType::BadSte))?;
        Ok((ste, origin))
    }

    fn stream_entry_address(&mut self, stream: u32) -> Result<u64, Fault> {
        let table = self.stream_table();
        let bad = || Fault::new(EventType::BadStreamId);
        if u64::from(stream) >> table.log2_streams != 0 {
            return Err(bad());
        }
        let Some(split) = table.split else {
            return Ok(table.base + u64::from(stream) * 64);
        };
        let at = table.base + (u64::from(stream) >> split) * 8;
        let descriptor = self
            .fetch(at, Fetch::Stream)
            .map_err(|_| Fault::fetch(EventType::SteFetch, at))?;
        let span = field(descriptor, 4, 0) as u32;
        if span == 0 || span > 11 || span > split + 1 {
            return Err(bad());
        }
        let low = u64::from(stream) & ((1 << split) - 1);
        if low >> (span - 1) != 0 {
            return Err(bad());
        }
        let array = align_down(keep(descriptor, 55, 6), 6 + span - 1);
        Ok(array + low * 64)
    }
}
