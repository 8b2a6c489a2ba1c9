//! Update handshakes: CR0, GBPA, IRQ_CTRL, GERRORN, and what a completed update means (§6.2.1).

use crate::bits::keep;
use crate::core::Core;
use crate::queue::Queue;
use crate::registers::{cr0, gbpa, gerror, offset};
use crate::violation::Rule;

/// Updates that the hardware has not acknowledged yet: when each will be.
#[derive(Clone, Default, Debug)]
pub(crate) struct Updates {
    /// By field of CR0, in the order of `cr0::FIELDS`.
    cr0: [Option<u64>; 6],
    gbpa: Option<(u64, u32)>,
    irq_ctrl: Option<u64>,
    /// When the oldest of them began.
    began_us: Option<u64>,
}

impl Updates {
    /// When the oldest update that is not acknowledged began.
    pub(crate) fn began_us(&self) -> Option<u64> {
        let is_pending =
            self.cr0.iter().any(Option::is_some) || self.gbpa.is_some() || self.irq_ctrl.is_some();
        self.began_us.filter(|_| is_pending)
    }
}

impl Core {
    /// When an update that starts now is acknowledged; `None`: never.
    fn acknowledge_at(&mut self) -> Option<u64> {
        let now = self.now_us();
        if self.updates.began_us().is_none() {
            self.updates.began_us = Some(now);
        }
        let due = now + self.choices.acknowledge_us() + self.faults.acknowledgement_us();
        (!self.faults.acknowledge_never).then_some(due)
    }

    pub(crate) fn write_cr0(&mut self, value: u32) {
        let all = cr0::FIELDS.iter().fold(0, |all, field| all | field);
        let value = self.reserved(offset::CR0, value, all);
        for (at, field) in cr0::FIELDS.into_iter().enumerate() {
            let changes = (value ^ self.registers.cr0) & field != 0;
            if !changes {
                continue;
            }
            let in_transition = (self.registers.cr0 ^ self.registers.cr0ack) & field != 0;
            if in_transition {
                self.violate(Rule::ChangedDuringUpdate, format!("CR0 bits {field:#x}"));
            }
            if field == cr0::SMMUEN && value & field == 0 && self.is_on(field) {
                self.check_disabled();
            }
            self.updates.cr0[at] = Some(self.acknowledge_at().unwrap_or(u64::MAX));
        }
        self.registers.cr0 = value;
    }

    pub(crate) fn write_gbpa(&mut self, value: u32) {
        if value & gbpa::UPDATE == 0 || self.registers.gbpa & gbpa::UPDATE != 0 {
            self.violate(Rule::GbpaWithoutUpdate, format!("{value:#x} to GBPA"));
            return;
        }
        let value = self.reserved(offset::GBPA, value, 0x801f_3f1f | 0x000f_0000);
        self.registers.gbpa |= gbpa::UPDATE;
        let due = self.acknowledge_at().unwrap_or(u64::MAX);
        self.updates.gbpa = Some((due, value & !gbpa::UPDATE));
    }

    pub(crate) fn write_irq_ctrl(&mut self, value: u32) {
        let value = self.reserved(offset::IRQ_CTRL, value, 7);
        if (value ^ self.registers.irq_ctrl)
            & (self.registers.irq_ctrl ^ self.registers.irq_ctrlack)
            != 0
        {
            self.violate(Rule::ChangedDuringUpdate, format!("IRQ_CTRL {value:#x}"));
        }
        self.registers.irq_ctrl = value;
        self.updates.irq_ctrl = Some(self.acknowledge_at().unwrap_or(u64::MAX));
    }

    pub(crate) fn write_gerrorn(&mut self, value: u32) {
        let value = self.reserved(offset::GERRORN, value, gerror::ALL);
        let active = self.registers.gerror ^ self.registers.gerrorn;
        let toggled = value ^ self.registers.gerrorn;
        if toggled & !active != 0 {
            self.violate(Rule::InactiveErrorToggled, format!("{value:#x} to GERRORN"));
        }
        // Service failure mode stays whatever is written.
        let stays = gerror::SFM_ERR & active;
        self.registers.gerrorn ^= toggled & active & !stays;
    }

    /// Completes the updates that are due.
    pub(crate) fn acknowledge(&mut self) {
        let now = self.now_us();
        for (at, field) in cr0::FIELDS.into_iter().enumerate() {
            if self.updates.cr0[at].is_some_and(|due| due <= now) {
                self.updates.cr0[at] = None;
                let old = self.registers.cr0ack;
                self.registers.cr0ack = old & !field | self.registers.cr0 & field;
                self.cr0_changed(field, old);
            }
        }
        if let Some((due, value)) = self.updates.gbpa
            && due <= now
        {
            self.updates.gbpa = None;
            self.registers.gbpa = value;
        }
        if self.updates.irq_ctrl.is_some_and(|due| due <= now) {
            self.updates.irq_ctrl = None;
            self.registers.irq_ctrlack = self.registers.irq_ctrl;
        }
    }

    /// A field of CR0 has taken effect.
    fn cr0_changed(&mut self, field: u32, old: u32) {
        let is_on = self.registers.cr0ack & field != 0;
        let was_on = old & field != 0;
        if is_on && !was_on {
            self.check_settled(field);
        }
        match (field, was_on, is_on) {
            (cr0::SMMUEN, false, true) => {
                self.check_stream_table();
                self.sweep();
            }
            (cr0::SMMUEN, true, false) => self.abort_stalls(),
            (cr0::CMDQEN, false, true) => self.check_queue(self.command_queue(), "CMDQ"),
            (cr0::EVENTQEN, false, true) => self.check_queue(self.event_queue(), "EVENTQ"),
            (cr0::EVENTQEN, true, false) => self.drop_events(),
            (cr0::PRIQEN, false, true) => self.check_queue(self.pri_queue(), "PRIQ"),
            _ => {}
        }
    }

    fn check_queue(&mut self, queue: Queue, name: &str) {
        let registers = &self.registers;
        let (base, prod, cons) = match name {
            "CMDQ" => (
                registers.cmdq_base,
                registers.cmdq_prod,
                registers.cmdq_cons,
            ),
            "EVENTQ" => (
                registers.eventq_base,
                registers.eventq_prod,
                registers.eventq_cons,
            ),
            _ => (
                registers.priq_base,
                registers.priq_prod,
                registers.priq_cons,
            ),
        };
        if keep(base, 55, 5) != queue.base {
            self.violate(Rule::TableMisaligned, format!("{name}_BASE {base:#x}"));
        }
        if !queue.is_consistent(prod, cons) {
            self.violate(
                Rule::QueueInconsistent,
                format!("{name} PROD {prod:#x}, CONS {cons:#x}"),
            );
        }
    }

    fn check_stream_table(&mut self) {
        let (base, config) = (self.registers.strtab_base, self.registers.strtab_base_cfg);
        if keep(base, 55, 6) != self.stream_table().base {
            self.violate(
                Rule::TableMisaligned,
                format!("STRTAB_BASE {base:#x} with STRTAB_BASE_CFG {config:#x}"),
            );
        }
        let format = config >> 16 & 3;
        let split = config >> 6 & 0x1f;
        let log2 = config & 0x3f;
        let bad_split = format == 1 && !matches!(split, 6 | 8 | 10);
        if format > 1
            || (format == 1 && !self.id.st_level2)
            || bad_split
            || log2 > u32::from(self.id.sid_bits)
        {
            self.violate(
                Rule::ReservedEncoding,
                format!("STRTAB_BASE_CFG {config:#x}"),
            );
        }
    }

    /// SMMUEN is being cleared: no stream may still have ATS, in a copy or in memory.
    fn check_disabled(&mut self) {
        let cached = self.caches.config.streams.keys();
        let mut streams: Vec<u32> = cached.chain(self.ahead.noticed()).copied().collect();
        streams.sort_unstable();
        let with_ats = streams.into_iter().find(|stream| {
            let copy = self.caches.config.ste(*stream);
            let copy = copy.and_then(|copy| copy.decoded.ok());
            let both = [copy, self.peek_ste(*stream)];
            let mut has_ats = both
                .iter()
                .flatten()
                .map(|ste| ste.effective_eats(true) != 0);
            has_ats.any(|has_ats| has_ats)
        });
        if let Some(stream) = with_ats {
            self.violate(Rule::DisabledWithAts, format!("stream {stream:#x}"));
        }
    }
}
