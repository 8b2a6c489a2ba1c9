//! A right driver breaks no rule, in any mode and for any seed.

use smmu_model::bench::bind_dma_release;
use smmu_model::{Claim, Identity, Mode, Rule};

#[test]
fn a_right_driver_is_clean_in_polite_mode() {
    bind_dma_release(Identity::full(), Mode::Polite).assert_clean();
}

#[test]
fn a_right_driver_is_clean_in_forgetful_mode() {
    bind_dma_release(Identity::full(), Mode::Forgetful).assert_clean();
}

#[test]
fn a_right_driver_is_clean_in_hoarding_mode() {
    bind_dma_release(Identity::full(), Mode::Hoarding).assert_clean();
}

#[test]
fn a_right_driver_is_clean_for_two_hundred_chaotic_seeds() {
    for seed in 0..200 {
        let bench = bind_dma_release(Identity::full(), Mode::Chaotic { seed });
        let violations = bench.machine.record().violations();
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
    }
}

#[test]
fn a_right_driver_that_cleans_is_clean_without_coherence() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 1 }] {
        bind_dma_release(Identity::incoherent(), mode).assert_clean();
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let run = |seed| {
        let bench = bind_dma_release(Identity::full(), Mode::Chaotic { seed });
        (
            bench.machine.record().step(),
            bench.machine.smmu(0).cached(),
            bench.machine.record().now_us(),
        )
    };
    assert_eq!(run(11), run(11));
    assert_ne!((0..8).map(run).collect::<Vec<_>>(), vec![run(0); 8]);
}

#[test]
fn a_frame_of_a_queue_or_table_in_use_cannot_be_given_back() {
    use smmu_model::bench::{Bench, CMDQ, EVENTQ, STREAMS};
    for pa in [CMDQ, EVENTQ, STREAMS] {
        let bench = Bench::up(Identity::full(), Mode::Polite);
        bench.machine.claim(Claim::FrameFreed { pa, bytes: 4096 });
        assert_eq!(bench.machine.record().count(Rule::FrameStillReachable), 1);
    }
}

#[test]
fn a_violation_tells_its_seed_and_its_story() {
    let bench = smmu_model::bench::bind_dma_release(Identity::full(), Mode::Chaotic { seed: 77 });
    bench.write(smmu_model::offset::IDR0, 1);
    let violations = bench.machine.record().violations();
    assert!(
        violations[0].to_string().contains("seed: 77"),
        "{}",
        violations[0]
    );
    assert_eq!(violations[0].story.0.len(), 1);
}

#[test]
fn machines_and_smmus_are_shared_between_threads() {
    const fn shared<T: Send + Sync>() {}
    shared::<smmu_model::Machine>();
    shared::<smmu_model::Smmu>();
    shared::<smmu_model::Record>();
}
