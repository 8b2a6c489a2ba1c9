//! Register accesses: who may write what when, and the handshakes (§6.2, §6.3).

use crate::core::Core;
use crate::registers::{Registers, cr0, gbpa, irq_ctrl, offset};
use crate::smmu::Settings;
use crate::violation::Rule;

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
        self.settle_register(at);
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
        self.settle_register(at);
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
        let cacheability = [0, 2, 6, 8].map(|at| value >> at & 3);
        let shareability = [4, 10].map(|at| value >> at & 3);
        if cacheability.contains(&3) || shareability.contains(&1) {
            self.violate(Rule::ReservedEncoding, format!("{value:#x} to CR1"));
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
