//! Each command, SYNC and store that the right driver's teardowns list is needed: without it the
//! model objects, in the hoarding mode or in one of 40 chaotic seeds.
//!
//! Barriers are left out: the one before CMDQ_PROD, which a rogue leaves out, covers them. So are
//! cleans, which a snooping SMMU does not need.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use smmu_model::Mode;

use super::driver::{Driver, Setup};
use super::gallery::{Story, arrays, full};
use super::step::{Edit, Operation, Step};
use super::stories;

/// Whether the model, the story or the driver itself notices the edit.
fn is_noticed(setup: Setup, story: Story, edit: Edit) -> bool {
    let mut driver = Driver::off(setup, Some(edit));
    let end = driver.bring_up().and_then(|()| story(&mut driver));
    end.is_err() || !driver.surprises.is_empty() || !driver.machine.record().violations().is_empty()
}

/// The last list of steps that the operation has in the story.
fn last_list(setup: Setup, story: Story, operation: Operation) -> (u32, Vec<Step>) {
    let seen = Rc::new(RefCell::new((0, Vec::new())));
    let into = Rc::clone(&seen);
    let edit = Edit::new(operation, move |steps| {
        let mut into = into.borrow_mut();
        *into = (into.0 + 1, steps.clone());
        false
    });
    assert!(
        !is_noticed(setup, story, edit),
        "the right driver is noticed"
    );
    seen.take()
}

/// Drops step `at` of the `list`th list of the operation, counted from 1.
fn without(operation: Operation, list: u32, at: usize) -> Edit {
    let count = Cell::new(0);
    Edit::new(operation, move |steps| {
        count.set(count.get() + 1);
        let is_it = count.get() == list;
        if is_it {
            steps.remove(at);
        }
        is_it
    })
}

fn no_step_is_idle(setup: fn(Mode) -> Setup, story: Story, operation: Operation) {
    let (list, steps) = last_list(setup(Mode::Hoarding), story, operation);
    assert!(!steps.is_empty(), "{operation:?} is not in the story");
    for (at, step) in steps.iter().enumerate() {
        if !matches!(step, Step::Store(..) | Step::Command(_) | Step::Sync) {
            continue;
        }
        let modes = (0..40).map(|seed| Mode::Chaotic { seed });
        let noticed = std::iter::once(Mode::Hoarding)
            .chain(modes)
            .any(|mode| is_noticed(setup(mode), story, without(operation, list, at)));
        assert!(noticed, "{operation:?} without step {at}: {step:?}");
    }
}

#[test]
fn no_step_of_a_streams_end_is_idle() {
    no_step_is_idle(full, stories::streams::a_stream_goes, Operation::RetractSte);
}

#[test]
fn no_step_of_an_arrays_end_is_idle() {
    no_step_is_idle(
        arrays,
        stories::streams::an_array_goes,
        Operation::RemoveArray,
    );
}

#[test]
fn no_step_of_a_contexts_end_is_idle() {
    no_step_is_idle(
        full,
        stories::contexts::a_context_goes,
        Operation::RetractCd,
    );
}

#[test]
fn no_step_of_a_shared_contexts_end_is_idle() {
    no_step_is_idle(
        full,
        stories::contexts::a_shared_context_goes,
        Operation::RetractCd,
    );
}

#[test]
fn no_step_of_a_leafs_end_is_idle() {
    no_step_is_idle(full, stories::contexts::a_leaf_goes, Operation::RemoveLeaf);
}

#[test]
fn no_step_of_a_release_is_idle() {
    no_step_is_idle(
        full,
        stories::contexts::a_space_is_released,
        Operation::Release,
    );
    no_step_is_idle(
        full,
        stories::contexts::a_space_of_two_streams_is_released,
        Operation::Release,
    );
    no_step_is_idle(
        full,
        stories::contexts::a_space_in_an_eager_atc_is_released,
        Operation::Release,
    );
}

#[test]
fn no_step_of_an_unmap_is_idle() {
    no_step_is_idle(full, stories::tables::pages_of_a_space_go, Operation::Unmap);
    no_step_is_idle(
        full,
        stories::tables::pages_in_an_eager_atc_go,
        Operation::Unmap,
    );
    no_step_is_idle(
        full,
        stories::tables::nested_pages_go,
        Operation::Stage2Unmap,
    );
}

#[test]
fn no_step_of_an_exchange_is_idle() {
    no_step_is_idle(
        full,
        stories::tables::a_page_is_exchanged,
        Operation::Exchange,
    );
}

#[test]
fn no_step_before_a_tag_is_taken_is_idle() {
    for story in [
        stories::contexts::an_asid_is_used_again,
        stories::contexts::a_vmid_is_used_again,
        stories::contexts::a_pasid_is_used_again,
    ] {
        no_step_is_idle(full, story, Operation::TakeTag);
    }
}
