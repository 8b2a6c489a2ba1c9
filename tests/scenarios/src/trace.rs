//! The story told line by line: who did what, which entry was stored, which command was sent, what
//! the device saw.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use portcullis_embedder::Deed;
use smmu_model::{Barrier, Machine, offset};

use crate::schedule;

/// Who tells, or keeps silent.
#[derive(Debug, Default)]
pub struct Trace {
    is_on: bool,
    /// The machine, and how many SMMUs it has.
    machine: OnceLock<(Arc<Machine>, usize)>,
}

impl Trace {
    /// One that tells, if `is_on`.
    pub const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            machine: OnceLock::new(),
        }
    }

    /// The machine that it tells of from now on.
    pub(crate) fn watch(&self, machine: Arc<Machine>, smmus: usize) {
        // A second machine would be another trace's.
        let _ = self.machine.set((machine, smmus));
    }

    /// Tells something that happened, in words.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if !self.is_on {
            return;
        }
        let now = self.now_us();
        let cpu = schedule::cpu().map_or_else(String::new, |cpu| format!("cpu {cpu}: "));
        println!("{now:>9} us  {cpu}{}", line());
    }

    /// What time it is on the machine.
    pub(crate) fn now_us(&self) -> u64 {
        self.machine.get().map_or(0, |(it, _)| it.record().now_us())
    }

    /// The commands that a deed announces to an SMMU.
    pub(crate) fn announced(&self, deed: Deed) -> Vec<[u64; 2]> {
        match (deed, self.machine.get()) {
            (
                Deed::RegisterWrite {
                    smmu,
                    offset: offset::CMDQ_PROD,
                    value,
                },
                Some((machine, _)),
            ) => commands(machine, smmu, value as u32),
            _ => Vec::new(),
        }
    }

    /// Has commands of this opcode, which are about to be announced, do nothing: they become
    /// invalidations of EL2's translations, of which there are none.
    pub(crate) fn swallow(&self, deed: Deed, opcode: u8) {
        let Some((machine, _)) = self.machine.get() else {
            return;
        };
        if let Deed::RegisterWrite {
            smmu,
            offset: offset::CMDQ_PROD,
            value,
        } = deed
        {
            for slot in slots(machine, smmu, value as u32) {
                let word = machine.memory().load(slot).unwrap_or(0);
                if word as u8 == opcode {
                    for (at, value) in [(slot, 0x20), (slot + 8, 0)] {
                        machine.store(at, value).expect("the queue is in memory");
                    }
                }
            }
            machine.barrier(Barrier::Publish);
        }
    }

    /// Tells what the library does, save what changes nothing.
    pub(crate) fn tell(&self, deed: Deed) {
        if !self.is_on {
            return;
        }
        let Some((machine, smmus)) = self.machine.get() else {
            return;
        };
        match deed {
            Deed::Store { pa, value } => {
                if let Some(what) = stored(machine, *smmus, pa) {
                    self.say(|| format!("    stores {value:#018x} at {pa:#x}: {what}"));
                }
            }
            Deed::RegisterWrite {
                smmu,
                offset: offset::CMDQ_PROD,
                ..
            } => {
                for [low, high] in self.announced(deed) {
                    self.say(|| format!("    SMMU {smmu} is sent {}", command(low, high)));
                }
            }
            Deed::RegisterWrite {
                smmu,
                offset,
                value,
            } => {
                if let Some(name) = register(offset) {
                    self.say(|| format!("    SMMU {smmu} {name} := {value:#x}"));
                }
            }
            Deed::Load { .. }
            | Deed::Barrier(_)
            | Deed::Clean { .. }
            | Deed::RegisterRead { .. }
            | Deed::Relax => {}
        }
    }
}

const fn register(at: u64) -> Option<&'static str> {
    Some(match at {
        offset::CR0 => "CR0",
        offset::GBPA => "GBPA",
        offset::GERRORN => "GERRORN",
        offset::EVENTQ_CONS => "EVENTQ_CONS",
        _ => return None,
    })
}

/// Where the command queue is, and how many entries it has, as a power of two.
fn queue(machine: &Machine, smmu: usize) -> (u64, u32) {
    let base = machine.smmu(smmu).read64(offset::CMDQ_BASE);
    (base & 0x000f_ffff_ffff_ffe0, (base & 31) as u32)
}

/// What the word at `pa` is, if it is worth telling: commands are told when they are sent.
fn stored(machine: &Machine, smmus: usize, pa: u64) -> Option<String> {
    for smmu in 0..smmus {
        let (commands, log2) = queue(machine, smmu);
        if (commands..commands + (16 << log2)).contains(&pa) {
            return None;
        }
        let table = machine.smmu(smmu).read64(offset::STRTAB_BASE) & 0x000f_ffff_ffff_ffc0;
        let config = machine.smmu(smmu).read32(offset::STRTAB_BASE_CFG);
        let is_linear = config >> 16 & 3 == 0;
        if is_linear && table != 0 && pa.wrapping_sub(table) >> ((config & 0x3f) + 6) == 0 {
            let (stream, word) = ((pa - table) / 64, (pa - table) % 64 / 8);
            return Some(format!("entry of stream {stream:#x}, word {word}"));
        }
        if let Some((at, what)) = machine.smmu(smmu).sealed_at(pa, 8) {
            return Some(format!("{what}, word {}", pa.saturating_sub(at & !63) / 8));
        }
    }
    // Memory that no SMMU uses now.
    None
}

/// The commands from where the queue stood up to `end`.
fn commands(machine: &Machine, smmu: usize, end: u32) -> Vec<[u64; 2]> {
    let word = |pa| machine.memory().load(pa).unwrap_or(0);
    let slots = slots(machine, smmu, end).into_iter();
    slots.map(|slot| [word(slot), word(slot + 8)]).collect()
}

/// Where these commands lie.
fn slots(machine: &Machine, smmu: usize, end: u32) -> Vec<u64> {
    let (base, log2) = queue(machine, smmu);
    let mask = (2_u32 << log2) - 1;
    let mut at = machine.smmu(smmu).read32(offset::CMDQ_PROD) & mask;
    let mut found = Vec::new();
    while at != end & mask {
        found.push(base + u64::from(at & (mask >> 1)) * 16);
        at = (at + 1) & mask;
    }
    found
}

/// A command in words (§4), by its own reading of the bits.
fn command(low: u64, high: u64) -> String {
    let (stream, substream) = (low >> 32, low >> 12 & 0xf_ffff);
    let (vmid, asid) = (low >> 32 & 0xffff, low >> 48);
    let (name, of_stream, of_substream, of_vmid, of_asid, of_address) = match low & 0xff {
        0x03 => ("CFGI_STE", true, false, false, false, false),
        0x04 => ("CFGI_ALL", false, false, false, false, false),
        0x05 => ("CFGI_CD", true, true, false, false, false),
        0x06 => ("CFGI_CD_ALL", true, false, false, false, false),
        0x10 => ("TLBI_NH_ALL", false, false, true, false, false),
        0x11 => ("TLBI_NH_ASID", false, false, true, true, false),
        0x12 => ("TLBI_NH_VA", false, false, true, true, true),
        0x13 => ("TLBI_NH_VAA", false, false, true, false, true),
        0x28 => ("TLBI_S12_VMALL", false, false, true, false, false),
        0x2a => ("TLBI_S2_IPA", false, false, true, false, true),
        0x30 => ("TLBI_NSNH_ALL", false, false, false, false, false),
        0x40 => ("ATC_INV", true, true, false, false, true),
        0x44 => ("RESUME", true, false, false, false, false),
        0x45 => ("STALL_TERM", true, false, false, false, false),
        0x46 => ("SYNC", false, false, false, false, false),
        other => return format!("a command of opcode {other:#04x}"),
    };
    let mut told = String::from(name);
    let mut add = |is_there: bool, name: &str, value: u64| {
        if is_there {
            // Writing to a string does not fail.
            let _ = write!(told, " {name} {value:#x}");
        }
    };
    add(of_stream, "stream", stream);
    add(of_substream, "PASID", substream);
    add(of_vmid, "VMID", vmid);
    add(of_asid, "ASID", asid);
    add(of_address, "from", high & !0xfff);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §4.3.3, §4.4.2, §4.7.3, by hand.
    #[test]
    fn commands_are_told_by_name_and_field() {
        assert_eq!(
            command(0x0000_0010_0000_3005, 1),
            "CFGI_CD stream 0x10 PASID 0x3"
        );
        assert_eq!(
            command(0x0005_0007_0000_0011, 0),
            "TLBI_NH_ASID VMID 0x7 ASID 0x5"
        );
        assert_eq!(command(0x46, 0), "SYNC");
        assert_eq!(command(0xff, 0), "a command of opcode 0xff");
    }
}
