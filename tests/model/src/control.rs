//! Register accesses: who may write what when, and the handshakes (§6.2, §6.3).

use crate::bits::keep;
use crate::core::Core;
use crate::queue::Queue;
use crate::registers::{Registers, cr0, gbpa, gerror, irq_ctrl, offset};
use crate::smmu::Settings;
use crate::violation::Rule;

/// Updates that the hardware has not acknowledged yet: when each will be.
#[derive(Clone, Default, Debug)]
pub(crate) struct Updates {
    /// By field of CR0, in the order of `cr0::FIELDS`.
    cr0: [Option<u64>; 6],
    gbpa: Option<(u64, u32)>,
    irq_ctrl: Option<u64>,
}

/// The registers after reset.
pub(crate) fn reset(settings: &Settings) -> Registers {
    let id = &settings.identity;
    Registers {
        idr: [
            id.idr0(),
            id.idr1(),
            0,
            id.idr3(),
            0,
            id.idr5(),
            id.iidr,
            u32::from(id.minor),
        ],
        gbpa: settings.gbpa & !gbpa::UPDATE,
        ..Registers::default()
    }
}

/// What guards a register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    /// Any of these bits of CR0, or of CR0ACK.
    Cr0(u32),
    /// Any of these bits of IRQ_CTRL, or of IRQ_CTRLACK.
    Irq(u32),
}

/// A 32-bit half of a register: which bits can be written, and what guards them.
struct Half {
    writable: u32,
    guard: Guard,
}

const fn half(writable: u32, guard: Guard) -> Option<Half> {
    Some(Half { writable, guard })
}

const QUEUES: u32 = cr0::CMDQEN | cr0::EVENTQEN | cr0::PRIQEN;

/// The plain registers; those with a behaviour of their own are in `Core::write_special`.
fn plain(at: u64) -> Option<Half> {
    let smmuen = Guard::Cr0(cr0::SMMUEN);
    match at {
        offset::CR1 => half(0xfff, Guard::None),
        offset::CR2 => half(0xf, smmuen),
        offset::AGBPA => half(u32::MAX, Guard::None),
        offset::STRTAB_BASE => half(0xffff_ffc0, smmuen),
        0x84 => half(0x40ff_ffff, smmuen),
        offset::STRTAB_BASE_CFG => half(0x3_07ff, smmuen),
        offset::CMDQ_BASE => half(u32::MAX, Guard::Cr0(cr0::CMDQEN)),
        0x94 => half(0x40ff_ffff, Guard::Cr0(cr0::CMDQEN)),
        offset::CMDQ_CONS => half(0x7f0f_ffff, Guard::Cr0(cr0::CMDQEN)),
        offset::EVENTQ_BASE => half(u32::MAX, Guard::Cr0(cr0::EVENTQEN)),
        0xa4 => half(0x40ff_ffff, Guard::Cr0(cr0::EVENTQEN)),
        offset::PRIQ_BASE => half(u32::MAX, Guard::Cr0(cr0::PRIQEN)),
        0xc4 => half(0x40ff_ffff, Guard::Cr0(cr0::PRIQEN)),
        offset::EVENTQ_PROD => half(0x800f_ffff, Guard::Cr0(cr0::EVENTQEN)),
        offset::PRIQ_PROD => half(0x800f_ffff, Guard::Cr0(cr0::PRIQEN)),
        0x68 => half(0xffff_fffc, Guard::Irq(irq_ctrl::GERROR_IRQEN)),
        0x6c => half(0x00ff_ffff, Guard::Irq(irq_ctrl::GERROR_IRQEN)),
        0x70 => half(u32::MAX, Guard::Irq(irq_ctrl::GERROR_IRQEN)),
        0x74 => half(0x3f, Guard::Irq(irq_ctrl::GERROR_IRQEN)),
        0xb0 => half(0xffff_fffc, Guard::Irq(irq_ctrl::EVENTQ_IRQEN)),
        0xb4 => half(0x00ff_ffff, Guard::Irq(irq_ctrl::EVENTQ_IRQEN)),
        0xb8 => half(u32::MAX, Guard::Irq(irq_ctrl::EVENTQ_IRQEN)),
        0xbc => half(0x3f, Guard::Irq(irq_ctrl::EVENTQ_IRQEN)),
        0xd0 => half(0xffff_fffc, Guard::Irq(irq_ctrl::PRIQ_IRQEN)),
        0xd4 => half(0x00ff_ffff, Guard::Irq(irq_ctrl::PRIQ_IRQEN)),
        0xd8 => half(u32::MAX, Guard::Irq(irq_ctrl::PRIQ_IRQEN)),
        0xdc => half(0x8000_003f, Guard::Irq(irq_ctrl::PRIQ_IRQEN)),
        _ => None,
    }
}

const fn is_read_only(at: u64) -> bool {
    matches!(at, 0x0..=0x1c | offset::CR0ACK | offset::STATUSR | offset::IRQ_CTRLACK | offset::GERROR | 0xfd0..=0xffc)
}

/// Whether a 64-bit register starts at `at`.
const fn is_wide(at: u64) -> bool {
    matches!(at, 0x68 | 0x80 | 0x90 | 0xa0 | 0xb0 | 0xc0 | 0xd0)
}

impl Core {
    pub(crate) fn read_register(&self, at: u64) -> u32 {
        if !at.is_multiple_of(4) || at >= offset::PAGES_BYTES {
            self.violate(Rule::RegisterAccessSize, format!("a read at {at:#x}"));
            return 0;
        }
        self.registers.value(at)
    }

    pub(crate) fn write_register64(&mut self, at: u64, value: u64) {
        if !is_wide(at) {
            self.violate(
                Rule::RegisterAccessSize,
                format!("a 64-bit write at {at:#x}"),
            );
            return;
        }
        self.write_plain(at, value as u32);
        self.write_plain(at + 4, (value >> 32) as u32);
    }

    pub(crate) fn write_register32(&mut self, at: u64, value: u32) {
        if !at.is_multiple_of(4) {
            self.violate(
                Rule::RegisterAccessSize,
                format!("an unaligned write at {at:#x}"),
            );
            return;
        }
        match at {
            offset::CR0 => self.write_cr0(value),
            offset::GBPA => self.write_gbpa(value),
            offset::IRQ_CTRL => self.write_irq_ctrl(value),
            offset::GERRORN => self.write_gerrorn(value),
            offset::CMDQ_PROD => self.write_cmdq_prod(value),
            offset::EVENTQ_CONS => self.write_eventq_cons(value),
            offset::PRIQ_CONS => self.write_priq_cons(value),
            _ if is_read_only(at) => {
                self.violate(Rule::ReadOnlyWritten, format!("{value:#x} to {at:#x}"))
            }
            _ => self.write_plain(at, value),
        }
        self.tick();
    }

    fn is_guarded(&self, guard: Guard) -> bool {
        match guard {
            Guard::None => false,
            Guard::Cr0(bits) => (self.registers.cr0 | self.registers.cr0ack) & bits != 0,
            Guard::Irq(bits) => (self.registers.irq_ctrl | self.registers.irq_ctrlack) & bits != 0,
        }
    }

    /// Complains of ones in bits that `writable` does not have, and clears them.
    pub(crate) fn reserved(&self, at: u64, value: u32, writable: u32) -> u32 {
        if value & !writable != 0 {
            self.violate(
                Rule::ReservedRegisterBits,
                format!("{value:#010x} to {at:#x}"),
            );
        }
        value & writable
    }

    fn write_plain(&mut self, at: u64, value: u32) {
        let Some(half) = plain(at) else {
            self.violate(Rule::UnknownRegister, format!("{value:#x} to {at:#x}"));
            return;
        };
        if self.is_guarded(half.guard) {
            self.violate(
                Rule::GuardedWrittenWhileOn,
                format!("{value:#x} to {at:#x}"),
            );
            return;
        }
        let value = self.reserved(at, value, half.writable);
        if at == offset::CR1 {
            self.write_cr1(value);
        } else {
            self.store_plain(at, value);
        }
    }

    fn write_cr1(&mut self, value: u32) {
        let changed = value ^ self.registers.cr1;
        let guarded = changed & 0x3f != 0 && self.is_guarded(Guard::Cr0(QUEUES))
            || changed & 0xfc0 != 0 && self.is_guarded(Guard::Cr0(cr0::SMMUEN));
        if guarded {
            self.violate(Rule::GuardedWrittenWhileOn, format!("{value:#x} to CR1"));
            return;
        }
        self.registers.cr1 = value;
    }

    fn store_plain(&mut self, at: u64, value: u32) {
        let wide = u64::from(value);
        let registers = &mut self.registers;
        let low = |word: &mut u64| *word = *word & !0xffff_ffff | wide;
        let high = |word: &mut u64| *word = *word & 0xffff_ffff | wide << 32;
        match at {
            offset::CR2 => registers.cr2 = value,
            offset::AGBPA => registers.agbpa = value,
            offset::STRTAB_BASE => low(&mut registers.strtab_base),
            0x84 => high(&mut registers.strtab_base),
            offset::STRTAB_BASE_CFG => registers.strtab_base_cfg = value,
            offset::CMDQ_BASE => low(&mut registers.cmdq_base),
            0x94 => high(&mut registers.cmdq_base),
            offset::CMDQ_CONS => registers.cmdq_cons = value,
            offset::EVENTQ_BASE => low(&mut registers.eventq_base),
            0xa4 => high(&mut registers.eventq_base),
            offset::PRIQ_BASE => low(&mut registers.priq_base),
            0xc4 => high(&mut registers.priq_base),
            offset::EVENTQ_PROD => registers.eventq_prod = value,
            offset::PRIQ_PROD => registers.priq_prod = value,
            _ => store_irq(registers, at, value),
        }
    }

    /// When an update that starts now is acknowledged; `None`: never.
    fn acknowledge_at(&mut self) -> Option<u64> {
        let due = self.now_us() + self.choices.acknowledge_us() + self.faults.acknowledge_late_us;
        (!self.faults.acknowledge_never).then_some(due)
    }

    fn write_cr0(&mut self, value: u32) {
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
            self.updates.cr0[at] = Some(self.acknowledge_at().unwrap_or(u64::MAX));
        }
        self.registers.cr0 = value;
    }

    fn write_gbpa(&mut self, value: u32) {
        if value & gbpa::UPDATE == 0 || self.registers.gbpa & gbpa::UPDATE != 0 {
            self.violate(Rule::GbpaWithoutUpdate, format!("{value:#x} to GBPA"));
            return;
        }
        let value = self.reserved(offset::GBPA, value, 0x801f_3f1f | 0x000f_0000);
        self.registers.gbpa |= gbpa::UPDATE;
        let due = self.acknowledge_at().unwrap_or(u64::MAX);
        self.updates.gbpa = Some((due, value & !gbpa::UPDATE));
    }

    fn write_irq_ctrl(&mut self, value: u32) {
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

    fn write_gerrorn(&mut self, value: u32) {
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
        match (field, was_on, is_on) {
            (cr0::SMMUEN, false, true) => {
                self.check_stream_table();
                self.sweep();
            }
            (cr0::SMMUEN, true, false) => {
                self.check_disabled();
                self.abort_stalls();
            }
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

    /// SMMUEN has become 0: no device may still hold translations.
    fn check_disabled(&mut self) {
        let streams = &self.caches.config.streams;
        let with_ats = streams.iter().find(|(_, copies)| {
            copies
                .ste
                .as_ref()
                .is_some_and(|copy| copy.decoded.is_ok_and(|ste| ste.effective_eats(true) != 0))
        });
        if let Some((stream, _)) = with_ats {
            self.violate(Rule::DisabledWithAts, format!("stream {stream:#x}"));
        }
    }

    pub(crate) fn refuse_size(&mut self, at: u64, bytes: usize) {
        self.violate(
            Rule::RegisterAccessSize,
            format!("a write of {bytes} bytes at {at:#x}"),
        );
    }

    /// Whether these bits of CR0 have taken effect as ones.
    pub(crate) fn is_on(&self, bits: u32) -> bool {
        self.registers.cr0ack & bits == bits
    }
}

fn store_irq(registers: &mut Registers, at: u64, value: u32) {
    let irq = match at & !0xf {
        0x60 | 0x70 => &mut registers.gerror_irq,
        0xb0 => &mut registers.eventq_irq,
        _ => &mut registers.priq_irq,
    };
    let start = if at < 0xb0 { 0x68 } else { at & !0xf };
    let wide = u64::from(value);
    match at - start {
        0 => irq.cfg0 = irq.cfg0 & !0xffff_ffff | wide,
        4 => irq.cfg0 = irq.cfg0 & 0xffff_ffff | wide << 32,
        8 => irq.cfg1 = value,
        _ => irq.cfg2 = value,
    }
}
