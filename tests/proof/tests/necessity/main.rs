//! Every command, CMD_SYNC, barrier and clean of every operation, left out one at a time.
//!
//! The model objects, or a device reaches what it must not, or does not reach what it is to, or the
//! operation says that it failed; in the hoarding mode, or in one of [`SEEDS`] chaotic seeds. What is
//! never noticed is in one table, with the reason; what is in the table is not noticed.

mod idle;
mod plays;
mod stage;

use idle::{IDLE, Idle};
use plays::PLAYS;
use portcullis::space::Fence;
use portcullis_proof::{Kind, Step, Tap, VA, Wanted, World, smmu_id, take_over};
use smmu_model::{Identity, Mode, Settings};
use stage::{Outcome, Play, STREAM};

/// How many seeds a step has to show itself in, beside the hoarding mode.
const SEEDS: u64 = 12;
/// In how many of them one that is explained is shown not to.
const EXPLAINED_SEEDS: u64 = 2;

fn modes(seeds: u64) -> impl Iterator<Item = Mode> {
    let seeds = (0..seeds).map(|seed| Mode::Chaotic { seed });
    std::iter::once(Mode::Hoarding).chain(seeds)
}

/// The play as it is, in a mode: nothing is noticed.
fn whole(play: &Play, mode: Mode) -> Outcome {
    let outcome = play.run(mode, None);
    assert_eq!(outcome.noticed, [""; 0], "{}: whole, {mode:?}", play.name);
    outcome
}

/// The steps of a play; where caches are not snooped, its cleans, which is all that differs.
fn steps(play: &Play) -> Vec<Step> {
    // Events come at once in some modes only.
    let mut found = modes(SEEDS).map(|mode| whole(play, mode).steps);
    let steps = found.find(|it| !it.is_empty()).expect("it does something");
    let is_meant = |step: &Step| play.setup.is_coherent || step.kind == Kind::Clean;
    steps.into_iter().filter(is_meant).collect()
}

/// Whether anybody notices that a step was left out.
fn is_noticed(play: &Play, step: Step, seeds: u64) -> bool {
    modes(seeds).any(|mode| {
        let outcome = play.run(mode, Some(step));
        // It is the step that is noticed, and not the mode.
        let is_noticed = outcome.came && !outcome.noticed.is_empty();
        is_noticed && (mode == Mode::Hoarding || whole(play, mode).noticed.is_empty())
    })
}

fn reason(play: &Play, step: Step) -> Option<&'static Idle> {
    IDLE.iter().find(|it| it.is_about(play.name, step))
}

/// Every `of`th play from `first` on.
fn no_step_is_idle(first: usize, of: usize) {
    stage::note_panics();
    let mut wrong = Vec::new();
    for play in PLAYS.iter().skip(first).step_by(of) {
        for step in steps(play) {
            let why = reason(play, step);
            let seeds = if why.is_some() {
                EXPLAINED_SEEDS
            } else {
                SEEDS
            };
            match (is_noticed(play, step, seeds), why) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(_)) => wrong.push(format!("{}: {step} is needed", play.name)),
                (false, None) => wrong.push(format!("{}: {step} is idle", play.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_step_is_idle_that_is_not_explained_1() {
    no_step_is_idle(0, 4);
}

#[test]
fn no_step_is_idle_that_is_not_explained_2() {
    no_step_is_idle(1, 4);
}

#[test]
fn no_step_is_idle_that_is_not_explained_3() {
    no_step_is_idle(2, 4);
}

#[test]
fn no_step_is_idle_that_is_not_explained_4() {
    no_step_is_idle(3, 4);
}

/// No row of the table is about a step that there is not.
#[test]
fn every_explanation_is_about_a_step() {
    stage::note_panics();
    let all: Vec<_> = PLAYS.iter().map(|play| (play, steps(play))).collect();
    for idle in IDLE {
        for name in idle.plays {
            let (_, steps) = all
                .iter()
                .find(|(play, _)| play.name == *name)
                .unwrap_or_else(|| panic!("there is no play {name}"));
            for nth in idle.nths {
                let is_it = |step: &&Step| (step.kind, step.nth + 1) == (idle.kind, *nth);
                assert!(
                    steps.iter().any(|step| is_it(&step)),
                    "{name}: {} {nth}",
                    idle.kind
                );
            }
        }
    }
}

/// What has no play, because it tells no SMMU anything: there is nothing to leave out.
#[test]
fn adding_and_halting_an_smmu_have_no_step() {
    let settings = Settings::new(Identity::full(), Mode::Hoarding);
    let tap = Tap::new(&[settings]);
    let smmus = [take_over(&tap, 0)];
    let (steps, _, mut world) = tap.without(None, || World::new(&tap, &smmus));
    assert_eq!(steps, [], "added");
    let guest = world.guest();
    let (board, _token) = world.attached(guest, Wanted::new(0, &[STREAM]));
    let (space, _) = world.space(guest);
    world.bind(guest, space, &board);
    let (steps, _, halted) = tap.without(None, || world.iommu.halt(smmu_id(0)));
    assert_eq!((steps, halted), (vec![], Ok(Fence::Smmu)));
    assert_eq!(board.guns[0].hits(Some(space.pasid), VA), None);
    world.expect_clean();
}
