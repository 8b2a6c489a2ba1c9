//! The CPU as a guest of a stage 2 would have it, for the self-check.

use portcullis::addr::Ipa;
use portcullis::arch::probe_el1::{CODE, Stage2Registers, probe};
use portcullis::check::{Cpu, CpuAnswer};
use portcullis::spec::vmsa::{CpuWalk, Stage2Walk};

/// This CPU.
pub(crate) const fn cpu() -> Cpu {
    Cpu { code: CODE, run }
}

fn run(walk: &Stage2Walk, entry: Ipa, at: Ipa) -> CpuAnswer {
    let CpuWalk { vtcr, vttbr } = CpuWalk::new(walk);
    let stage2 = Stage2Registers {
        control: vtcr,
        root: vttbr,
    };
    let answer = probe(stage2, entry, at);
    CpuAnswer {
        syndrome: answer.syndrome,
        at: Ipa::new(answer.address),
    }
}
