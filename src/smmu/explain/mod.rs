//! Why a transaction would translate or fault, and where: the tables as they lie in memory now,
//! walked as the SMMU walks them (§3.3, §3.4, §5, §6 of the fact sheet's order; DDI 0487 D8).
//!
//! It starts from the registers and believes nothing that this library remembers; fields are read
//! by bit numbers of its own, so that a mistake of the encoders is seen and not shared. Whatever is
//! in memory, a walk ends after a bounded number of reads: 4 of configuration and, where stage 1 is
//! on, 4 levels, each with 4 of stage 2.
//!
//! It tells what memory says. An SMMU that does otherwise uses what it cached, so a command or a
//! SYNC is missing: that difference is what an explanation is for.

mod fact;
mod stage1;
mod stage2;
#[cfg(test)]
mod tests;
mod text;

pub use fact::{
    ContextSeen, EntrySeen, Explanation, Found, Outcome, Purpose, Reason, Stage, Stop, Structure,
};

use super::Smmu;
use super::probe::Features;
use crate::addr::{Iova, Pa};
use crate::hw::Platform;
use crate::id::{Asid, StreamId, SubstreamId, Vmid};
use crate::spec::bits::Field;
use crate::spec::registers::{CR0, GBPA, offset};

/// The end of a walk before its end.
type Ended<T> = Result<T, Outcome>;

const fn aborts<T>(reason: Reason) -> Ended<T> {
    Err(Outcome::Aborts(reason))
}

/// Where the stream table is, as the registers say.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    is_on: bool,
    gate_aborts: bool,
    table: u64,
    table_config: u32,
}

/// Memory and what the SMMU is like.
struct View<'a> {
    peek: &'a dyn Fn(Pa) -> Option<u64>,
    output_bits: u8,
    substream_bits: u8,
}

impl View<'_> {
    fn read(&self, what: Structure, at: Pa) -> Ended<u64> {
        (self.peek)(at).ok_or(Outcome::Unreadable { what, at })
    }
}

impl<P: Platform> Smmu<'_, P> {
    /// Says what a transaction of `stream` at `address` would meet, by the tables in memory now.
    ///
    /// The transaction is taken to be unprivileged data, as those of PCIe are. What cannot be read
    /// through [`Platform::peek`] is named and ends the explanation. Changes nothing; takes no lock,
    /// so tables that change meanwhile may be seen half changed.
    pub fn explain(
        &self,
        stream: StreamId,
        substream: Option<SubstreamId>,
        address: Iova,
    ) -> Explanation {
        let high = u64::from(self.io.read32(offset::STRTAB_BASE + 4));
        let registers = Registers {
            is_on: self.io.read32(offset::CR0) & CR0::SMMUEN::SET.value != 0,
            gate_aborts: self.io.read32(offset::GBPA) & GBPA::ABORT::SET.value != 0,
            table: high << 32 | u64::from(self.io.read32(offset::STRTAB_BASE)),
            table_config: self.io.read32(offset::STRTAB_BASE_CFG),
        };
        let peek = |at| self.io.platform().peek(at);
        explain(
            &peek,
            registers,
            &self.features,
            (stream, substream, address),
        )
    }
}

fn explain(
    peek: &dyn Fn(Pa) -> Option<u64>,
    registers: Registers,
    features: &Features,
    (stream, substream, address): (StreamId, Option<SubstreamId>, Iova),
) -> Explanation {
    let view = View {
        peek,
        output_bits: features.output_bits,
        substream_bits: features.substream_bits,
    };
    let mut explanation = Explanation {
        stream,
        substream,
        address,
        entry: None,
        context: None,
        intermediate: None,
        outcome: Outcome::Bypasses,
    };
    let outcome = view.transaction(registers, &mut explanation);
    explanation.outcome = match outcome {
        Ok(outcome) | Err(outcome) => outcome,
    };
    explanation
}

const LOG2_L1STD_BYTES: u8 = 3;
const LOG2_STE_BYTES: u8 = 6;
const LOG2_CD_BYTES: u8 = 6;

const SPAN: Field = Field::bits(4, 0);
const L2_STREAMS: Field = Field::bits(55, 6);

const STE_VALID: Field = Field::bit(0);
const CONFIG: Field = Field::bits(3, 1);
const S1_FORMAT: Field = Field::bits(5, 4);
const S1_CONTEXTS: Field = Field::bits(55, 6);
const LOG2_CONTEXTS: Field = Field::bits(63, 59);
const S1_DEFAULT: Field = Field::bits(65, 64);
const STREAM_WORLD: Field = Field::bits(95, 94);
const PRIVILEGE: Field = Field::bits(113, 112);
const VMID: Field = Field::bits(143, 128);
const S2_ROOT: Field = Field::bits(247, 196);

const L1CD_VALID: Field = Field::bit(0);
const L2_CONTEXTS: Field = Field::bits(55, 12);
const CD_VALID: Field = Field::bit(31);
const CD_ASID: Field = Field::bits(63, 48);

/// `2^log2` rounded down to.
const fn aligned(address: u64, log2: u8) -> u64 {
    address >> log2 << log2
}

/// How many words of an STE are looked at.
type Ste = [u64; 4];

impl View<'_> {
    fn transaction(&self, registers: Registers, seen: &mut Explanation) -> Ended<Outcome> {
        if !registers.is_on {
            return match registers.gate_aborts {
                true => aborts(Reason::GateShut),
                false => Ok(Outcome::Bypasses),
            };
        }
        let (at, ste) = self.entry(registers, seen.stream)?;
        seen.entry = Some(EntrySeen {
            at,
            word: ste[0],
            vmid: Vmid::new(VMID.get(&ste) as u16),
            root: Pa::new(S2_ROOT.get_address(&ste)),
        });
        if STE_VALID.get(&ste) == 0 {
            return aborts(Reason::EntryInvalid);
        }
        let config = CONFIG.get(&ste);
        if config & 0b100 == 0 {
            return aborts(Reason::EntryAborts);
        }
        let second = match config & 0b010 {
            0 => None,
            _ => Some(stage2::Tables::decode(&ste, self.output_bits)?),
        };
        let index = self.context_index(&ste, seen.substream)?;
        let first = match index {
            None => None,
            Some(index) => Some(self.stage1(&ste, second.as_ref(), index, seen)?),
        };
        self.end(first, second, seen)
    }

    /// Puts the stages together.
    fn end(
        &self,
        first: Option<stage1::Leaf>,
        second: Option<stage2::Tables>,
        seen: &mut Explanation,
    ) -> Ended<Outcome> {
        let address = seen.address.as_u64();
        seen.intermediate = first.map(|leaf| leaf.output);
        let (can_read, can_write) = first.map_or((true, true), |it| (it.can_read, it.can_write));
        match (first, second) {
            (None, None) => Ok(Outcome::Bypasses),
            (Some(leaf), None) => Ok(Outcome::Reaches {
                pa: Pa::new(leaf.output),
                can_read,
                can_write,
            }),
            (first, Some(second)) => {
                if first.is_none() && address >> self.output_bits != 0 {
                    let bits = self.output_bits;
                    return aborts(Reason::InputTooWide { bits });
                }
                let input = first.map_or(address, |leaf| leaf.output);
                let leaf = self.stage2(&second, input, Purpose::Input)?;
                Ok(Outcome::Reaches {
                    pa: leaf.pa,
                    can_read: can_read && leaf.can_read,
                    can_write: can_write && leaf.can_write,
                })
            }
        }
    }

    /// Finds the stream's entry (§3.3, §6.3.25).
    fn entry(&self, registers: Registers, stream: StreamId) -> Ended<(Pa, Ste)> {
        let config = registers.table_config;
        let log2_streams = (config & 0x3f) as u8;
        let number = u64::from(stream.as_u32());
        if log2_streams < 32 && number >> log2_streams != 0 {
            return aborts(Reason::StreamTooLarge { log2_streams });
        }
        let base = L2_STREAMS.get_address(&[registers.table]);
        let is_two_level = config >> 16 & 0b11 == 1;
        let array = if is_two_level {
            let split = match config >> 6 & 0x1f {
                split @ (8 | 10) => split as u8,
                _ => 6,
            };
            let log2_l1 = (log2_streams.saturating_sub(split) + LOG2_L1STD_BYTES).max(6);
            let at = aligned(base, log2_l1) + (number >> split << LOG2_L1STD_BYTES);
            self.array(Pa::new(at), split, number)?
        } else {
            aligned(base, log2_streams.min(32) + LOG2_STE_BYTES) + (number << LOG2_STE_BYTES)
        };
        let mut ste = [0; 4];
        for (word, offset) in ste.iter_mut().zip((0..).step_by(8)) {
            *word = self.read(Structure::Ste, Pa::new(array + offset))?;
        }
        Ok((Pa::new(array), ste))
    }

    /// Where the entry is that the level 1 descriptor at `at` leads to (§5.1).
    fn array(&self, at: Pa, split: u8, number: u64) -> Ended<u64> {
        let word = self.read(Structure::L1Std, at)?;
        let span = SPAN.get(&[word]) as u8;
        let inside = number & ((1 << split) - 1);
        if span == 0 || span > split + 1 || inside >> (span - 1) != 0 {
            return aborts(Reason::NoEntry { at, word });
        }
        let array = aligned(L2_STREAMS.get_address(&[word]), LOG2_STE_BYTES + span - 1);
        Ok(array + (inside << LOG2_STE_BYTES))
    }

    /// Which context translates, or `None`: stage 1 is off for this traffic.
    fn context_index(&self, ste: &Ste, substream: Option<SubstreamId>) -> Ended<Option<u64>> {
        let has_stage1 = CONFIG.get(ste) & 0b001 != 0;
        let log2_contexts = LOG2_CONTEXTS.get(ste) as u8;
        let has_substreams = has_stage1 && log2_contexts != 0 && self.substream_bits != 0;
        let default = S1_DEFAULT.get(ste);
        match substream {
            Some(_) if !has_substreams => aborts(Reason::NoSubstreams),
            Some(substream) => {
                let number = u64::from(substream.as_u32());
                if number >> log2_contexts != 0 {
                    return aborts(Reason::SubstreamTooLarge { log2_contexts });
                }
                if number == 0 && default == 2 {
                    return aborts(Reason::SubstreamZero);
                }
                Ok(Some(number))
            }
            None if !has_stage1 || (has_substreams && default == 1) => Ok(None),
            None if has_substreams && default != 2 => aborts(Reason::SubstreamMissing),
            None => Ok(Some(0)),
        }
    }

    /// What stage 1 makes of the address.
    fn stage1(
        &self,
        ste: &Ste,
        second: Option<&stage2::Tables>,
        index: u64,
        seen: &mut Explanation,
    ) -> Ended<stage1::Leaf> {
        if second.is_none() && STREAM_WORLD.get(ste) != 0 {
            return aborts(Reason::EntryIllegal("STRW is not that of EL1"));
        }
        let at = self.context_address(ste, second, index)?;
        let mut cd = [0; 3];
        for (word, offset) in cd.iter_mut().zip((0..).step_by(8)) {
            let pa = self.physical(second, at + offset, Purpose::Context)?;
            *word = self.read(Structure::Cd, pa)?;
        }
        seen.context = Some(ContextSeen {
            at,
            word: cd[0],
            asid: Asid::new(CD_ASID.get(&cd) as u16),
        });
        if CD_VALID.get(&cd) == 0 {
            return aborts(Reason::ContextInvalid);
        }
        let address = seen.address.as_u64();
        let half = stage1::Half::decode(&cd, address, self.output_bits)?;
        let is_privileged = PRIVILEGE.get(ste) == 3;
        self.walk_stage1(&half, second, address, is_privileged)
    }

    /// Where the context number `index` lies (§5.3).
    fn context_address(
        &self,
        ste: &Ste,
        second: Option<&stage2::Tables>,
        index: u64,
    ) -> Ended<u64> {
        let base = S1_CONTEXTS.get_address(ste);
        let has_table = LOG2_CONTEXTS.get(ste) != 0 && self.substream_bits != 0;
        let split = match S1_FORMAT.get(ste) {
            1 if has_table => 6,
            2 if has_table => 10,
            _ => return Ok(base + (index << LOG2_CD_BYTES)),
        };
        let at = base + (index >> split << 3);
        let pa = self.physical(second, at, Purpose::Context)?;
        let word = self.read(Structure::L1Cd, pa)?;
        if L1CD_VALID.get(&[word]) == 0 {
            return aborts(Reason::NoContext { at, word });
        }
        let leaf = aligned(L2_CONTEXTS.get_address(&[word]), split + LOG2_CD_BYTES);
        Ok(leaf + ((index & ((1 << split) - 1)) << LOG2_CD_BYTES))
    }

    /// Where the SMMU reads what stage 1 puts at `at`.
    fn physical(&self, second: Option<&stage2::Tables>, at: u64, purpose: Purpose) -> Ended<Pa> {
        match second {
            None => Ok(Pa::new(at)),
            Some(tables) => self.stage2(tables, at, purpose).map(|leaf| leaf.pa),
        }
    }
}
