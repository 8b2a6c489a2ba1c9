//! Every story, in every configuration with a model that hoards, and at many seeds with one that
//! draws what it does. A thousand seeds, or as many as `PORTCULLIS_SEEDS` says.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use portcullis_scenarios::{Run, STORIES, Story, find, play};

const SEEDS: u64 = 1000;

fn seeds() -> u64 {
    let asked = std::env::var("PORTCULLIS_SEEDS").ok();
    asked.map_or(SEEDS, |asked| {
        asked.parse().expect("PORTCULLIS_SEEDS is a number")
    })
}

/// Plays it once; if it does not hold, says how to see it again.
fn once(story: &Story, run: &Run, seed: Option<u64>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(story, run))) {
        let number = run.configuration.number();
        let seed = seed.map_or_else(String::new, |seed| format!(" --seed {seed}"));
        eprintln!(
            "{} did not hold: {:?}, {}\nsee it by: cargo xtask scenario {}{seed} --configuration {number} --trace",
            story.name, run.mode, run.configuration, story.name
        );
        resume_unwind(panic);
    }
}

/// Plays a story everywhere; `expected` says in how many configurations that is.
fn everywhere(name: &str, expected: usize) {
    let story = find(name).expect("it is in the list");
    let mut played = 0;
    for configuration in story.configurations() {
        once(story, &Run::hoarding(configuration), None);
        played += 1;
    }
    assert_eq!(played, expected, "{name}");
    let mut drawn = 0;
    for seed in 0..seeds() {
        once(story, &Run::chaotic(story.draw(seed), seed), Some(seed));
        drawn += 1;
    }
    assert_eq!(drawn, seeds());
}

macro_rules! stories {
    ($($test:ident: $expected:literal,)*) => {
        /// The names of all tests below, as stories have them.
        const TESTED: &[&str] = &[$(stringify!($test)),*];

        $(
            #[test]
            fn $test() {
                everywhere(&stringify!($test).replace('_', "-"), $expected);
            }
        )*
    };
}

stories! {
    exit_without_close: 112,
    daemon_fork: 112,
    exec_keeps_handle: 112,
    adopt: 112,
    unbind_after_release: 112,
    publish_over_live: 112,
    killed_in_the_middle: 112,
    self_mapped_handle: 112,
    bind_twice: 112,
    number_for_life: 112,
    one_space_many_devices: 112,
    misfit: 56,
    too_many: 112,
    park_in_any_order: 112,
    quiet_after_release: 112,
    still_firing_at_reuse: 112,
    device_resets_while_parked: 112,
    device_unplugged: 112,
    owner_before_probe: 112,
    two_in_a_group: 112,
    hand_over: 112,
    release_races_bind: 112,
    handle_passed_on: 112,
    guest_dies: 112,
    sync_never_comes: 112,
    late_sync: 112,
    shared_smmu_dies: 112,
    stalled_when_killed: 32,
    storm: 32,
    ats_holdout: 64,
    global_entries: 112,
    unmap_under_dma: 112,
    stage1_unmap_under_dma: 112,
    guest_starts_over: 112,
    window_is_sealed: 112,
}

#[test]
fn every_story_has_its_test_here() {
    let stories: Vec<_> = STORIES
        .iter()
        .map(|story| story.name.replace('-', "_"))
        .collect();
    assert_eq!(stories, TESTED);
}
