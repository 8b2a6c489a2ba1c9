//! On one core: a polite hit, the same through a device's doorbell and without any cache, and
//! 10,000 chaotic seeds of a bind/DMA/release story. The latter are ratios to the hit.

use std::hint::black_box;
use std::time::Instant;

use smmu_model::bench::{Bench, bind_dma_release, s1_page, s2_page, ste_nested};
use smmu_model::device::{Device, Wiring, frame};
use smmu_model::{Identity, Mode, Outcome, Transaction};

const HITS: u32 = 1_000_000;
const SEEDS: u64 = 10_000;

/// A nested stream with one page.
fn nested_stream(mode: Mode) -> (Bench, u64) {
    let mut bench = Bench::up(Identity::full(), mode);
    let root2 = bench.frames(12);
    let contexts = bench.frames(12);
    let root1 = bench.frames(12);
    let page = bench.frames(12);
    for frame in 0..16 {
        let at = contexts + frame * 0x1000;
        bench.map2(root2, at, at);
    }
    let leaf = bench.leaf(root1, 0x1000_0000);
    bench.store(leaf, s1_page(page));
    bench.publish();
    assert_ne!(s2_page(page), 0);
    bench.publish_ste(5, &ste_nested(7, root2, contexts, 4));
    bench.publish_cd(5, 3, contexts + 3 * 64, &smmu_model::bench::cd(1, root1));
    (bench, 0x1000_0000)
}

/// Nanoseconds of one transaction.
fn transact(bench: &Bench, va: u64, count: u32) -> f64 {
    let smmu = bench.machine.smmu(0);
    let started = Instant::now();
    for _ in 0..count {
        let outcome = smmu.transact(Transaction::write(5, va, &[1; 8]).with_substream(3));
        assert!(matches!(black_box(outcome), Outcome::Done { .. }));
    }
    started.elapsed().as_nanos() as f64 / f64::from(count)
}

/// Nanoseconds of one shot of a device, of one doorbell for all.
fn fire(bench: &Bench, va: u64, count: u32) -> f64 {
    let device = Device::new(bench.machine.smmu(0), Wiring::full(5));
    device.write32(frame::CONTROL, frame::control::ENABLE);
    device.write32(frame::PASID, 1 << 31 | 3);
    device.write64(frame::IOVA, va);
    device.write32(frame::LENGTH, 8);
    device.write32(frame::FLAGS, frame::flags::WRITE);
    device.write32(frame::SHOTS, count);
    let started = Instant::now();
    device.write32(frame::COMMAND, frame::command::START);
    let taken = started.elapsed();
    assert_eq!(device.read32(frame::DONE), count);
    taken.as_nanos() as f64 / f64::from(count)
}

fn main() {
    // `cargo test` runs this, too: then it only shows that it still works.
    let (hits, seeds) = if std::env::args().any(|argument| argument == "--bench") {
        (HITS, SEEDS)
    } else {
        (1000, 3)
    };
    let (bench, va) = nested_stream(Mode::Polite);
    let hit_ns = transact(&bench, va, hits);
    println!("polite nested TLB hit: {hit_ns:.0} ns");
    let shot_ns = fire(&bench, va, hits);
    println!("one shot of a device: {:.1} hits", shot_ns / hit_ns);
    let (bench, va) = nested_stream(Mode::Forgetful);
    let walk_ns = transact(&bench, va, hits / 10);
    println!("without caches: {:.1} hits", walk_ns / hit_ns);
    let started = Instant::now();
    for seed in 0..seeds {
        let bench = bind_dma_release(Identity::full(), Mode::Chaotic { seed });
        let violations = bench.machine.record().violations();
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
    }
    println!(
        "{seeds} chaotic seeds of bind/DMA/release: {:.1} s",
        started.elapsed().as_secs_f64()
    );
}
