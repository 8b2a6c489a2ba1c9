//! Whatever a driver or a guest writes, the model answers with events and violations, not with a
//! panic: random registers, structures, commands, transactions and claims.

use smmu_model::bench::{BASE, BYTES, Bench, CMDQ, CMDQ_LOG2, STREAMS, SYNC, cd, ste_nested};
use smmu_model::{
    Barrier, Claim, Identity, Kind, Mode, PageRequest, StallModel, Transaction, offset,
};

/// A small generator of its own: tests must not depend on the model's choices.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 ^ self.0 >> 29
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// Addresses in memory, near its ends, and anywhere; small numbers; all ones.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.next(),
            1 => BASE + self.below(BYTES),
            2 => u64::MAX << self.below(64),
            3 => self.below(64),
            4 => (BASE + self.below(BYTES)) | 0b11 | (1 << 10),
            _ => (BASE + BYTES).wrapping_sub(self.below(256)),
        }
    }
}

fn transact(bench: &Bench, draw: &mut Draw) {
    let kinds = [
        Kind::Ordinary,
        Kind::Posted,
        Kind::Speculative,
        Kind::AtsRequest,
        Kind::Translated,
    ];
    let address = draw.word();
    let stream = if draw.below(8) == 0 {
        draw.next() as u32
    } else {
        draw.below(64) as u32
    };
    let mut transaction = if draw.below(2) == 0 {
        Transaction::read(stream, address, draw.below(5000) as usize)
    } else {
        Transaction::write(stream, address, &vec![1; draw.below(64) as usize])
    };
    if draw.below(2) == 0 {
        transaction.substream = Some(if draw.below(4) == 0 {
            draw.next() as u32
        } else {
            draw.below(8) as u32
        });
    }
    transaction.is_privileged = draw.below(2) == 0;
    transaction.is_instruction = draw.below(4) == 0;
    transaction.kind = kinds[draw.below(5) as usize];
    bench.machine.smmu(0).transact(transaction);
}

fn claim(bench: &Bench, draw: &mut Draw) {
    let (vmid, asid) = (draw.below(16) as u16, draw.below(16) as u16);
    let (pa, bytes) = (draw.word(), draw.word());
    let claims = [
        Claim::FrameFreed {
            pa: pa & !0xfff,
            bytes: 4096,
        },
        Claim::FrameTaken { pa, bytes },
        Claim::AsidTaken { vmid, asid },
        Claim::VmidTaken { vmid },
        Claim::PasidTaken {
            smmu: 0,
            stream: draw.below(64) as u32,
            substream: draw.below(8) as u32,
        },
        Claim::ReleaseBegins { vmid, asid },
        Claim::ReleaseEnds { vmid, asid },
    ];
    bench.machine.claim(claims[draw.below(7) as usize]);
}

fn command(bench: &Bench, draw: &mut Draw, producer: &mut u32) {
    let at = CMDQ + u64::from(*producer & ((1 << CMDQ_LOG2) - 1)) * 16;
    let opcodes = [
        1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x20, 0x22, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44,
        0x45, 0x46,
    ];
    let opcode = opcodes[draw.below(20) as usize];
    let noise = if draw.below(3) == 0 {
        draw.next()
    } else {
        draw.below(64) << 32 | draw.below(8) << 12
    };
    bench.store(at, noise & !0xff | opcode);
    bench.store(at + 8, draw.word());
    *producer = (*producer + 1) & ((2 << CMDQ_LOG2) - 1);
    bench.publish();
    bench.write(offset::CMDQ_PROD, *producer);
    // Whatever stopped the queue is acknowledged, and the command replaced.
    if bench.read(offset::GERROR) != bench.read(offset::GERRORN) {
        let stopped = bench.read(offset::CMDQ_CONS) & ((1 << CMDQ_LOG2) - 1);
        bench.store(CMDQ + u64::from(stopped) * 16, SYNC[0]);
        bench.store(CMDQ + u64::from(stopped) * 16 + 8, 0);
        bench.publish();
        bench.write(offset::GERRORN, bench.read(offset::GERROR));
    }
    bench.machine.advance(20);
}

fn run(identity: Identity, mode: Mode, seed: u64) {
    let mut draw = Draw(seed);
    let mut bench = Bench::up(identity, mode);
    let contexts = bench.frames(12);
    let root = bench.frames(12);
    bench.publish_ste(1, &ste_nested(3, root, contexts, 3));
    let _ = bench.machine.store(contexts, cd(1, root)[0]);
    let mut producer = bench.read(offset::CMDQ_CONS) & ((2 << CMDQ_LOG2) - 1);
    for _ in 0..400 {
        match draw.below(12) {
            0 => {
                let _ = bench
                    .machine
                    .store(STREAMS + draw.below(512) * 8, draw.word());
            }
            1 | 2 => {
                let word = draw.word();
                let _ = bench.machine.store(contexts + draw.below(1024) * 8, word);
            }
            3 => {
                let _ = bench.machine.store(draw.word() & !7, draw.word());
            }
            4 => bench.machine.barrier(Barrier::Release),
            5 => bench.write(draw.below(0x80) * 4, draw.next() as u32),
            6 => bench.write64(draw.below(0x40) * 8, draw.word()),
            7 => claim(&bench, &mut draw),
            8 => command(&bench, &mut draw, &mut producer),
            9 => bench.machine.smmu(0).page_request(PageRequest {
                stream: draw.next() as u32,
                substream: Some(draw.next() as u32),
                address: draw.word(),
                group: draw.next() as u16,
                wants_read: draw.below(2) == 0,
                wants_write: false,
                wants_execute: true,
                is_privileged: true,
                is_last: draw.below(2) == 0,
            }),
            _ => transact(&bench, &mut draw),
        }
    }
    let _ = bench.machine.smmu(0).take_finished();
}

#[test]
fn nothing_makes_a_polite_model_panic() {
    for seed in 0..150 {
        run(Identity::full(), Mode::Polite, seed);
    }
}

#[test]
fn nothing_makes_a_hoarding_model_panic() {
    for seed in 0..60 {
        run(Identity::full(), Mode::Hoarding, seed);
    }
}

#[test]
fn nothing_makes_a_chaotic_model_panic() {
    for seed in 0..100 {
        run(Identity::full(), Mode::Chaotic { seed }, seed);
    }
}

#[test]
fn nothing_makes_other_presets_panic() {
    let stage1_only = Identity {
        stage2: false,
        ..Identity::full()
    };
    let stage2_only = Identity {
        stage1: false,
        ..Identity::full()
    };
    let wide = Identity {
        oas_bits: 52,
        vax52: true,
        stt: true,
        ..Identity::full()
    };
    let presets = [
        Identity::qemu(),
        Identity::kunpeng_920(),
        Identity::narrow_tags(),
        Identity::incoherent(),
        Identity::with_stalls(StallModel::StallForced),
        stage1_only,
        stage2_only,
        wide,
    ];
    for identity in presets {
        for seed in 0..20 {
            run(identity, Mode::Chaotic { seed }, seed + 1000);
        }
    }
}
