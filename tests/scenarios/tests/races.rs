//! Races at every point of a call, and what is not held while a CPU waits.

use portcullis_scenarios::{Configuration, KILLED_ANYWHERE, Run, play};

/// Configurations that differ in all that a call's steps depend on.
fn few() -> impl Iterator<Item = Configuration> {
    Configuration::all().into_iter().step_by(19)
}

#[test]
fn a_death_or_a_release_cuts_in_at_every_point_of_every_call() {
    let mut played = 0;
    for configuration in few() {
        play(KILLED_ANYWHERE, &Run::hoarding(configuration));
        played += 1;
    }
    assert_eq!(played, 6);
}
