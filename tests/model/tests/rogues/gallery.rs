//! How a rogue is caught: its story, its one different step, and the name of what it breaks.

use smmu_model::{Mode, Rule};

use super::driver::{Driver, Setup, Trouble};
use super::step::Edit;

/// What somebody does with the SMMU, right if the driver is.
pub(crate) type Story = fn(&mut Driver) -> Result<(), Trouble>;

/// In how many chaotic seeds the right driver must be clean beside every rogue.
const RIGHT_SEEDS: u64 = 16;

/// What gives a rogue away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// The model objects with this name.
    Breaks(Rule),
    /// The story sees something else than it expects.
    Surprises(&'static str),
    /// The driver itself ends in this trouble.
    Ends(Trouble),
}

/// Where a rogue is caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Where {
    /// In the hoarding mode, and in one of [`SEEDS`] chaotic seeds.
    Hoarding,
    /// In the chaotic mode alone, in one of so many seeds from 0.
    Seeds(u64),
}

/// In how many chaotic seeds a rogue is caught that the hoarding mode catches. The slowest took 37
/// when this was written, most are caught by the first.
const SEEDS: u64 = 128;

/// A wrong driver.
pub(crate) struct Rogue {
    /// How the machine is made, mode aside.
    pub(crate) setup: fn(Mode) -> Setup,
    /// What is done.
    pub(crate) story: Story,
    /// What is done differently.
    pub(crate) edit: fn() -> Edit,
    /// What gives it away.
    pub(crate) mark: Mark,
}

impl Rogue {
    fn play(&self, mode: Mode, edit: Option<Edit>) -> (Driver, Result<(), Trouble>) {
        let mut driver = Driver::off((self.setup)(mode), edit);
        let end = driver.bring_up().and_then(|()| (self.story)(&mut driver));
        (driver, end)
    }

    /// Asserts that the right driver breaks no rule and sees what it expects.
    fn assert_right(&self, mode: Mode) {
        let (driver, end) = self.play(mode, None);
        let violations = driver.machine.record().violations();
        assert!(
            violations.is_empty(),
            "the right driver in {mode:?}: {}",
            violations[0]
        );
        assert_eq!(end, Ok(()), "the right driver in {mode:?}");
        assert!(
            driver.surprises.is_empty(),
            "the right driver in {mode:?} saw: {:?}",
            driver.surprises
        );
    }

    /// Whether the mark is seen; what was seen instead is added to `instead`.
    fn is_caught(&self, mode: Mode, instead: &mut Vec<String>) -> bool {
        let (driver, end) = self.play(mode, Some((self.edit)()));
        assert_ne!(driver.hits(), 0, "the rogue did nothing different");
        let caught = match self.mark {
            Mark::Breaks(rule) => driver.machine.record().count(rule) != 0,
            Mark::Surprises(surprise) => driver.surprises.contains(&surprise),
            Mark::Ends(trouble) => end == Err(trouble),
        };
        if !caught {
            let rules: Vec<Rule> = driver
                .machine
                .record()
                .violations()
                .iter()
                .map(|violation| violation.rule)
                .collect();
            instead.push(format!(
                "{mode:?}: {rules:?} {:?} {end:?}",
                driver.surprises
            ));
        }
        caught
    }

    /// Asserts that the rogue is caught by its mark there, and the right driver is clean in the
    /// hoarding mode and in those seeds.
    pub(crate) fn is_caught_in(&self, place: Where) {
        let mut instead = Vec::new();
        self.assert_right(Mode::Polite);
        self.assert_right(Mode::Hoarding);
        let seeds = match place {
            Where::Hoarding => {
                let caught = self.is_caught(Mode::Hoarding, &mut instead);
                assert!(
                    caught,
                    "not caught by {:?}; instead {instead:#?}",
                    self.mark
                );
                SEEDS
            }
            Where::Seeds(seeds) => seeds,
        };
        let caught =
            (0..seeds).find(|seed| self.is_caught(Mode::Chaotic { seed: *seed }, &mut instead));
        let Some(caught) = caught else {
            panic!("not caught by {:?}; instead {instead:#?}", self.mark);
        };
        let seeds = RIGHT_SEEDS.max(caught + 1);
        for seed in 0..seeds {
            self.assert_right(Mode::Chaotic { seed });
        }
    }
}

/// A machine with everything.
pub(crate) fn full(mode: Mode) -> Setup {
    Setup::new(smmu_model::Identity::full(), mode)
}

/// A machine that does not snoop.
pub(crate) fn incoherent(mode: Mode) -> Setup {
    Setup::new(smmu_model::Identity::incoherent(), mode)
}

/// A machine with arrays of stream table entries.
pub(crate) fn arrays(mode: Mode) -> Setup {
    Setup {
        has_stream_arrays: true,
        ..full(mode)
    }
}

/// A machine whose command queue holds 16 commands.
pub(crate) fn short_queue(mode: Mode) -> Setup {
    Setup {
        cmdq_log2: 4,
        ..full(mode)
    }
}
