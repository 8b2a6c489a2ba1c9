//! A right driver breaks no rule, in any mode and for any seed.

use smmu_model::bench::bind_dma_release;
use smmu_model::{Identity, Mode};

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
