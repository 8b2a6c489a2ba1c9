//! Rules about single stores, entries and commands.

use crate::bits::{keep, mask};
use crate::cache::config::{CdCopy, SteCopy};
use crate::cache::tlb::{Regime, VaEntry};
use crate::cd::Cd;
use crate::command::{Command, Tlbi};
use crate::core::Core;
use crate::descriptor::Descriptor;
use crate::format::Granule;
use crate::interrupt::Line;
use crate::queue::Queue;
use crate::registers::{cr0, gerror};
use crate::stage1::Space;
use crate::ste::{Ste, World};
use crate::substream::first_level;
use crate::violation::Rule;

/// Records that the driver has read and for which no barrier has followed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Reads {
    events: bool,
    page_requests: bool,
}

impl Core {
    /// The driver has loaded a word; `is_stale`: a barrier was needed to see what is there.
    pub(crate) fn driver_loaded(&mut self, pa: u64, is_stale: bool) {
        let registers = &self.registers;
        let is_in = |queue: Queue, prod, cons| {
            queue
                .distance_of(pa, cons)
                .is_some_and(|distance| distance < queue.used(prod, cons))
        };
        let is_event = self.is_on(cr0::EVENTQEN)
            && is_in(
                self.event_queue(),
                registers.eventq_prod,
                registers.eventq_cons,
            );
        let is_request = self.is_on(cr0::PRIQEN)
            && is_in(self.pri_queue(), registers.priq_prod, registers.priq_cons);
        if is_stale && (is_event || is_request) {
            self.violate(Rule::ReadWithoutBarrier, format!("the record at {pa:#x}"));
        }
        self.reads.events |= is_event;
        self.reads.page_requests |= is_request;
    }

    pub(crate) fn driver_released(&mut self) {
        self.reads = Reads::default();
    }

    /// CONS of a queue is written: what was read must have been read by now.
    pub(crate) fn check_given_back(&mut self, line: Line) {
        let reads = &mut self.reads;
        let unordered = match line {
            Line::EventQueue => std::mem::take(&mut reads.events),
            _ => std::mem::take(&mut reads.page_requests),
        };
        if unordered {
            self.violate(Rule::GivenBackWithoutBarrier, format!("CONS of {line:?}"));
        }
    }

    /// A stage-1 descriptor was replaced.
    pub(crate) fn check_stage1_store(
        &self,
        pa: u64,
        (old, new): (u64, u64),
        (stream, substream): (u32, u32),
        level: u32,
        va: u64,
    ) {
        let Some((ste, cd, _)) = self.peek_cd(stream, substream) else {
            return;
        };
        let Some((_, granule)) = self.peek_walk1(stream, substream, va, level) else {
            return;
        };
        let (old, new) = if cd.is_big_endian {
            (old.swap_bytes(), new.swap_bytes())
        } else {
            (old, new)
        };
        self.check_break(pa, old, new, granule, level);
        // What is kept must have been forgotten before something else is put there.
        let space = Space {
            stream,
            substream,
            ste: &ste,
            cd: &cd,
        };
        let kept = self
            .caches
            .tlb
            .entries(space.regime())
            .and_then(|entries| entries.find_va(va, cd.asid, cd.aset));
        if let (Descriptor::Leaf(leaf), Some((entry, _))) =
            (Descriptor::new(new, granule, level, cd.output_bits), kept)
        {
            let differs = entry.stage1.translate(va) != leaf.address
                || kind(entry.stage1.origin.value, &cd) != kind(new, &cd);
            if differs && old & 1 == 0 {
                let item = (
                    format!("a translation of {va:#x} under ASID {}", cd.asid),
                    entry.stage1.origin,
                );
                let what =
                    format!("the descriptor at {pa:#x} became {new:#x} without an invalidation");
                self.record.violate(Rule::BreakBeforeMake, what, &[item]);
            }
        }
    }

    /// A stage-2 descriptor was replaced.
    pub(crate) fn check_stage2_store(
        &self,
        pa: u64,
        (old, new): (u64, u64),
        stream: u32,
        level: u32,
        ipa: u64,
    ) {
        let Some(s2) = self.peek_ste(stream).and_then(|ste| ste.stage2) else {
            return;
        };
        let granule = s2.shape.root.granule;
        let (old, new) = if s2.is_big_endian {
            (old.swap_bytes(), new.swap_bytes())
        } else {
            (old, new)
        };
        self.check_break(pa, old, new, granule, level);
        let regime = Regime {
            world: World::El1,
            vmid: s2.vmid,
        };
        let kept = self
            .caches
            .tlb
            .entries(regime)
            .and_then(|entries| entries.find_ipa(ipa));
        if let (Descriptor::Leaf(leaf), Some(entry)) =
            (Descriptor::new(new, granule, level, s2.output_bits), kept)
            && old & 1 == 0
            && entry.leaf.translate(ipa) != leaf.address
        {
            let item = (
                format!("a stage-2 translation of {ipa:#x} under VMID {}", s2.vmid),
                entry.leaf.origin,
            );
            let what = format!("the descriptor at {pa:#x} became {new:#x} without an invalidation");
            self.record.violate(Rule::BreakBeforeMake, what, &[item]);
        }
    }

    /// A valid descriptor became another valid one: what may change without a break (DDI 0487,
    /// D8.16).
    fn check_break(&self, pa: u64, old: u64, new: u64, granule: Granule, level: u32) {
        let shape = |word| Descriptor::new(word, granule, level, 48);
        let wrong = match (shape(old), shape(new)) {
            (Descriptor::Leaf(was), Descriptor::Leaf(is)) => {
                // Attributes, shareability, and non-global becoming global.
                let kind = 0b1111 << 2 | 0b11 << 8;
                let contiguous = (old ^ new) & 1 << 52 != 0 && self.id.bbml == 0;
                was.address != is.address || (old ^ new) & kind != 0 || contiguous
            }
            (Descriptor::Leaf(_), Descriptor::Table { .. })
            | (Descriptor::Table { .. }, Descriptor::Leaf(_)) => {
                let leaf = if old & 2 == 0 { old } else { new };
                let has_nt = leaf & 1 << 16 != 0;
                self.id.bbml == 0 || (self.id.bbml == 1 && !has_nt)
            }
            _ => false,
        };
        if wrong {
            self.violate(
                Rule::BreakBeforeMake,
                format!("the descriptor at {pa:#x} went from {old:#x} to {new:#x}"),
            );
        }
    }

    /// A command that the SMMU owns must not be touched.
    pub(crate) fn check_owned_command(&self, pa: u64) {
        if !self.is_on(cr0::CMDQEN) || self.is_active(gerror::CMDQ_ERR) {
            return;
        }
        let queue = self.command_queue();
        let (prod, cons) = (self.registers.cmdq_prod, self.registers.cmdq_cons);
        let owned = queue.used(prod, cons);
        if queue
            .distance_of(pa, cons)
            .is_some_and(|distance| distance < owned)
        {
            self.violate(
                Rule::QueueEntryTouched,
                format!("the command at {:#x}", pa & !15),
            );
        }
    }

    /// Reserved bits of a stream table entry that is used.
    pub(crate) fn check_reserved_ste(&self, stream: u32, copy: &SteCopy) {
        let words = &copy.words;
        let Ok(ste) = &copy.decoded else {
            return;
        };
        self.check_entry_tables(stream, ste, copy);
        if ste.eats == 1 || ste.eats == 2 {
            self.check_ats(stream, copy);
        }
        let s2 = ste.stage2.is_some();
        let stray = words[0] & 7 << 56 != 0
            || words[1] & 7 << 41 != 0
            || (s2 && words[3] & !mask(51, 4) != 0)
            || words[4] >> 16 != 0
            || words[5] | words[6] | words[7] != 0;
        if stray && !ste.aborts {
            let item = (format!("the entry of stream {stream:#x}"), copy.origin);
            self.record
                .violate(Rule::EntryReservedBits, format!("{words:#x?}"), &[item]);
        }
    }

    /// Tables that an entry points to lie where the pointer says, low bits included.
    fn check_entry_tables(&self, stream: u32, ste: &Ste, copy: &SteCopy) {
        let root = ste.stage2.map(|s2| (keep(copy.words[3], 51, 4), s2.root));
        let contexts = ste
            .stage1
            .map(|s1| (s1.context_pointer, first_level(&s1, 0)));
        for (written, used) in root.into_iter().chain(contexts) {
            if written != used {
                let item = (format!("the entry of stream {stream:#x}"), copy.origin);
                self.record.violate(
                    Rule::TableMisaligned,
                    format!("{written:#x} acts as {used:#x}"),
                    &[item],
                );
            }
        }
    }

    fn check_ats(&self, stream: u32, copy: &SteCopy) {
        if self.registers.cr0 & cr0::ATSCHK == 0 {
            let item = (format!("the entry of stream {stream:#x}"), copy.origin);
            self.record.violate(
                Rule::AtsWithoutCheck,
                format!("stream {stream:#x}"),
                &[item],
            );
        }
    }

    /// Reserved bits of a context descriptor that is valid.
    pub(crate) fn check_reserved_cd(&mut self, stream: u32, substream: u32, copy: &CdCopy) {
        self.entry_fetched((stream, Some(substream)));
        let words = &copy.words;
        if !crate::cd::is_valid(words) {
            return;
        }
        let stray = words[1] & mask(57, 52) != 0
            || words[2] & mask(57, 52) != 0
            || words[5] & mask(63, 56) != 0
            || words[6] >> 48 != 0
            || words[7] >> 48 != 0;
        if stray {
            let item = (
                format!("the context descriptor {substream} of stream {stream:#x}"),
                copy.origin,
            );
            self.record
                .violate(Rule::EntryReservedBits, format!("{words:#x?}"), &[item]);
        }
    }

    /// The SMMU writes a record: not into a frame that was given back.
    pub(crate) fn check_written(&self, pa: u64) {
        if self.claims.is_free(pa) {
            self.violate(
                Rule::FreedFrameFetched,
                format!("SMMU {} wrote a record at {pa:#x}", self.index),
            );
        }
    }

    /// A lookup hit two entries: `true`, and a violation, if they say different things.
    pub(crate) fn conflict(&self, va: u64, one: &VaEntry, other: &VaEntry) -> bool {
        let (one, other) = (&one.stage1, &other.stage1);
        let differs = one.translate(va) != other.translate(va)
            || one.attributes != other.attributes
            || one.permission != other.permission;
        if differs {
            let items = [
                (format!("a translation of {va:#x}"), one.origin),
                (format!("another translation of {va:#x}"), other.origin),
            ];
            self.record.violate(
                Rule::TranslationConflict,
                format!("a lookup of {va:#x}"),
                &items,
            );
        }
        differs
    }

    /// A command was consumed: its parameters, and what it should have been preceded by.
    pub(crate) fn check_command(&self, command: &Command) {
        let sid_bits = u32::from(self.id.sid_bits);
        let is_far = |stream: u32| u64::from(stream) >> sid_bits != 0;
        let is_wide = |substream: u32| substream >> self.id.ssid_bits.min(20) != 0;
        let wrong = match command {
            Command::CfgiSte { stream, .. }
            | Command::CfgiCdAll { stream }
            | Command::StallTerm { stream } => is_far(*stream),
            Command::CfgiRange { log2: 32, .. } => false,
            Command::CfgiRange { stream, .. } | Command::Resume { stream, .. } => is_far(*stream),
            Command::CfgiCd {
                stream, substream, ..
            } => is_far(*stream) || is_wide(*substream),
            Command::AtcInv {
                stream, substream, ..
            }
            | Command::PriResp {
                stream, substream, ..
            } => is_far(*stream) || substream.is_some_and(is_wide),
            Command::Tlbi(tlbi) => self.is_beyond(tlbi),
            _ => false,
        };
        if wrong {
            self.violate(Rule::CommandOutOfRange, format!("{command:x?}"));
        }
        self.check_visible(command);
    }

    fn is_beyond(&self, tlbi: &Tlbi) -> bool {
        let wide_vmid = !self.id.vmid16 && tlbi.vmid().is_some_and(|vmid| vmid > 0xff);
        let asid = match tlbi {
            Tlbi::Asid { asid, .. } | Tlbi::Va { asid, .. } => *asid,
            _ => 0,
        };
        let far_ipa =
            matches!(tlbi, Tlbi::S2Ipa { span, .. } if span.first >> self.id.ias_bits() != 0);
        wide_vmid || (!self.id.asid16 && asid > 0xff) || far_ipa
    }

    /// The entry that is to be forgotten must already be as it is to be.
    fn check_visible(&self, command: &Command) {
        let pa = match command {
            Command::CfgiSte { stream, .. } => self.peek_ste_address(*stream),
            Command::CfgiCd {
                stream, substream, ..
            } => self
                .peek_ste(*stream)
                .and_then(|ste| self.peek_cd_address(&ste, *substream)),
            _ => None,
        };
        if let Some(pa) = pa
            && (0..8).any(|word| self.memory.is_unpublished(pa + 8 * word))
        {
            self.violate(
                Rule::InvalidatedBeforeVisible,
                format!("the entry at {pa:#x}, by {command:x?}"),
            );
        }
    }
}

/// The attributes of a stage-1 leaf that must not change while it is live.
const fn kind(word: u64, cd: &Cd) -> (u8, u64) {
    ((cd.mair >> (8 * (word >> 2 & 7))) as u8, word & 3 << 8)
}
