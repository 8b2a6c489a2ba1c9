//! Races at every point of a call, and what is not held while a CPU waits.

use portcullis_scenarios::{Run, find, play};

/// Plays a story in every `step`th of its configurations; how many that were.
fn in_some(name: &str, step: usize) -> usize {
    let story = find(name).expect("it is in the list");
    let configurations = story.configurations().into_iter().step_by(step);
    configurations
        .map(|configuration| play(story, &Run::hoarding(configuration)))
        .count()
}

#[test]
fn a_death_or_a_release_cuts_in_at_every_point_of_every_call() {
    assert_eq!(in_some("killed-anywhere", 19), 6);
}

#[test]
fn a_release_is_not_delayed_by_another_smmu_that_never_answers() {
    assert_eq!(in_some("release-beside-silence", 5), 12);
}

#[test]
fn no_lock_but_an_objects_own_is_held_while_waiting_for_a_sync() {
    assert_eq!(in_some("others-go-on", 5), 12);
}
