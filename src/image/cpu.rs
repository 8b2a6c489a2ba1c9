//! The CPU as a guest of a stage 2 would have it, for the self-check.

use portcullis::addr::Ipa;
use portcullis::arch::probe_el1::{CODE, Stage2Registers, probe};
use portcullis::check::{Cpu, CpuAnswer};
use portcullis::spec::vmsa::Stage2Walk;

/// This CPU.
pub(crate) const fn cpu() -> Cpu {
    Cpu { code: CODE, run }
}

fn run(walk: &Stage2Walk, entry: Ipa, at: Ipa) -> CpuAnswer {
    let answer = probe(registers(walk), entry, at);
    CpuAnswer {
        syndrome: answer.syndrome,
        at: Ipa::new(answer.address),
    }
}

/// DDI 0487, `VTCR_EL2` and `VTTBR_EL2`: the fields of an STE in other places.
fn registers(walk: &Stage2Walk) -> Stage2Registers {
    const RES1: u64 = 1 << 31;
    const WRITE_BACK: u64 = 1 << 8 | 1 << 10;
    const INNER_SHAREABLE: u64 = 0b11 << 12;
    let geometry = &walk.geometry;
    let shape = u64::from(geometry.t0sz())
        | u64::from(geometry.sl0()) << 6
        | u64::from(geometry.tg()) << 14
        | u64::from(geometry.ps()) << 16;
    Stage2Registers {
        control: RES1 | WRITE_BACK | INNER_SHAREABLE | shape,
        root: walk.root.as_u64() | u64::from(walk.vmid.as_u16()) << 48,
    }
}
