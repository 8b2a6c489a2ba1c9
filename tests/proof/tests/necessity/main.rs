//! Every command, CMD_SYNC, barrier and clean of every operation, left out one at a time.

mod plays;
mod stage;

use plays::PLAYS;
use portcullis_proof::{Kind, Step};
use smmu_model::Mode;
use stage::Play;

/// How many seeds a step has to show itself in, beside the hoarding mode.
const SEEDS: u64 = 12;

fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..SEEDS).map(|seed| Mode::Chaotic { seed });
    std::iter::once(Mode::Hoarding).chain(seeds)
}

/// The steps of a play that nobody misses.
fn idle(play: &Play) -> Vec<Step> {
    // Events come at once in some modes only.
    let mut wholes = modes().map(|mode| play.run(mode, None));
    let whole = wholes
        .find(|it| !it.steps.is_empty())
        .expect("it does something");
    assert_eq!(whole.noticed, [""; 0], "{}: played whole", play.name);
    assert!(!whole.steps.is_empty(), "{}: it does nothing", play.name);
    // On the other hand cleans are all that differs where caches are not snooped.
    let steps = whole
        .steps
        .into_iter()
        .filter(|step| play.setup.is_coherent || step.kind == Kind::Clean);
    let is_idle = |step: &Step| {
        !modes().any(|mode| {
            let outcome = play.run(mode, Some(*step));
            let is_noticed = outcome.came && !outcome.noticed.is_empty();
            // What is noticed is the step, not the mode.
            is_noticed && play.run(mode, None).noticed.is_empty()
        })
    };
    steps.filter(is_idle).collect()
}

#[test]
fn explore() {
    stage::note_panics();
    for play in PLAYS {
        if let Ok(only) = std::env::var("ONLY")
            && !play.name.contains(&only)
        {
            continue;
        }
        let idle = idle(play);
        let total = play.run(Mode::Hoarding, None).steps.len();
        let list: Vec<_> = idle.iter().map(ToString::to_string).collect();
        println!("{} ({total}): {}", play.name, list.join(", "));
    }
}
