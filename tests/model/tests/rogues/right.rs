//! The right driver, on every kind of SMMU it knows, in every mode.

use smmu_model::{Identity, Mode, StallModel};

use super::driver::{Driver, Setup};
use super::gallery::Story;
use super::stories;

const STORIES: &[(&str, Story)] = &[
    ("a_stream_goes", stories::streams::a_stream_goes),
    ("a_stream_moves", stories::streams::a_stream_moves),
    ("a_stream_changes", stories::streams::a_stream_changes),
    (
        "a_stream_with_contexts_goes",
        stories::streams::a_stream_with_contexts_goes,
    ),
    ("a_context_goes", stories::contexts::a_context_goes),
    ("a_leaf_goes", stories::contexts::a_leaf_goes),
    (
        "a_shared_context_goes",
        stories::contexts::a_shared_context_goes,
    ),
    ("a_context_moves", stories::contexts::a_context_moves),
    (
        "a_space_is_released",
        stories::contexts::a_space_is_released,
    ),
    (
        "a_space_of_two_streams_is_released",
        stories::contexts::a_space_of_two_streams_is_released,
    ),
    (
        "a_space_beside_global_pages_is_released",
        stories::contexts::a_space_beside_global_pages_is_released,
    ),
    (
        "a_space_in_an_atc_is_released",
        stories::contexts::a_space_in_an_atc_is_released,
    ),
    (
        "an_asid_is_used_again",
        stories::contexts::an_asid_is_used_again,
    ),
    (
        "a_vmid_is_used_again",
        stories::contexts::a_vmid_is_used_again,
    ),
    (
        "a_pasid_is_used_again",
        stories::contexts::a_pasid_is_used_again,
    ),
    ("pages_of_a_space_go", stories::tables::pages_of_a_space_go),
    ("a_page_is_exchanged", stories::tables::a_page_is_exchanged),
    ("a_table_goes", stories::tables::a_table_goes),
    ("stage_2_pages_go", stories::tables::stage_2_pages_go),
    ("nested_pages_go", stories::tables::nested_pages_go),
    (
        "pages_in_an_eager_atc_go",
        stories::tables::pages_in_an_eager_atc_go,
    ),
    ("the_smmu_goes_off", stories::machine::the_smmu_goes_off),
    (
        "the_smmu_is_taken_over",
        stories::machine::the_smmu_is_taken_over,
    ),
    ("a_fault_is_read", stories::machine::a_fault_is_read),
];

fn tell_all(setup: Setup) {
    for (name, story) in STORIES {
        let mut driver = Driver::off(setup, None);
        let end = driver.bring_up().and_then(|()| story(&mut driver));
        let violations = driver.machine.record().violations();
        assert!(
            violations.is_empty(),
            "{name} in {:?}: {}",
            setup.mode,
            violations[0]
        );
        assert_eq!(end, Ok(()), "{name} in {:?}", setup.mode);
        assert!(
            driver.surprises.is_empty(),
            "{name} in {:?}: {:?}",
            setup.mode,
            driver.surprises
        );
    }
}

fn is_right_on(identity: Identity) {
    for mode in [Mode::Polite, Mode::Forgetful, Mode::Hoarding] {
        tell_all(Setup::new(identity, mode));
    }
    for seed in 0..24 {
        tell_all(Setup::new(identity, Mode::Chaotic { seed }));
    }
}

#[test]
fn the_right_driver_is_clean_on_a_full_smmu() {
    is_right_on(Identity::full());
}

#[test]
fn the_right_driver_is_clean_where_the_smmu_does_not_snoop() {
    is_right_on(Identity::incoherent());
}

#[test]
fn the_right_driver_is_clean_on_a_kunpeng_920() {
    is_right_on(Identity::kunpeng_920());
}

#[test]
fn the_right_driver_is_clean_with_8_bit_tags() {
    is_right_on(Identity::narrow_tags());
}

#[test]
fn the_right_driver_is_clean_where_nothing_stalls() {
    is_right_on(Identity::with_stalls(StallModel::TerminateOnly));
}
