//! What each command removes from the caches: exactly that (§4.3, §4.4).

use crate::command::Command;
use crate::core::Core;
use crate::registers::cr0;

impl Core {
    /// Performs an invalidation.
    pub(crate) fn invalidate(&mut self, command: &Command) {
        self.cancel_fetches(command);
        self.has_forgotten(command);
        let config = &mut self.caches.config;
        match command {
            Command::CfgiSte { stream, is_leaf } => {
                config.forget_stream(*stream);
                if !is_leaf {
                    self.forget_l1std(*stream);
                }
            }
            Command::CfgiRange { log2: 32, .. } => {
                let count = config.clear();
                if self.is_on(cr0::SMMUEN) {
                    self.record.count_foreign_evictions(count);
                }
            }
            Command::CfgiRange { stream, log2 } => self.forget_range(*stream, *log2),
            Command::CfgiCd {
                stream,
                substream,
                is_leaf,
            } => {
                let copies = config.stream_mut(*stream);
                copies.cds.remove(substream);
                let s1 = copies
                    .ste
                    .as_ref()
                    .and_then(|copy| copy.decoded.ok()?.stage1);
                let split = s1.as_ref().and_then(crate::substream::split);
                // Without the entry the table's format is not known: either index may be meant.
                let splits = split.map_or([6, 10], |split| [split, split]);
                if !is_leaf {
                    for split in splits {
                        copies.l1cds.remove(&(substream >> split));
                    }
                }
            }
            Command::CfgiCdAll { stream } => {
                config.forget_contexts(*stream);
            }
            Command::Tlbi(tlbi) => {
                let removed = self.caches.tlb.remove(tlbi, self.wild_vmid_bits());
                if self.is_on(cr0::SMMUEN) {
                    self.record.count_foreign_evictions(removed.foreign);
                }
            }
            _ => {}
        }
    }

    fn forget_l1std(&mut self, stream: u32) {
        if let Some(split) = self.stream_table().split {
            self.caches.config.l1stds.remove(&(stream >> split));
        }
    }

    fn forget_range(&mut self, stream: u32, log2: u32) {
        let covers = |other: u32| other >> log2 == stream >> log2;
        let streams = &mut self.caches.config.streams;
        streams.retain(|other, _| !covers(*other));
        if let Some(split) = self.stream_table().split {
            let first = stream >> log2 << log2 >> split;
            let last = (stream | ((1 << log2) - 1)) >> split;
            self.caches
                .config
                .l1stds
                .retain(|index, _| !(first..=last).contains(index));
        }
    }

    /// VMID bits that invalidations do not compare.
    fn wild_vmid_bits(&self) -> u16 {
        if !self.id.vmw {
            return 0;
        }
        let count = ((self.registers.cr0ack & cr0::VMW) >> 6).min(4);
        (1 << count) - 1
    }
}
