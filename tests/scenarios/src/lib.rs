//! Stories of processes, PASIDs, devices and handles, played on the hostile model.
//!
//! Each comes from a real incident or a real argument, and is one small file of `stories/`. It is
//! played on every [`Configuration`] of the machine with a model that hoards, and at any number of
//! seeds with one that draws what it does. `README.md` beside this crate tells how to run one, how to
//! read its trace, and how to add one.

mod configuration;
mod judge;
mod schedule;
mod stage;
mod stories;
mod trace;
mod waiting;
mod world;

use std::sync::Arc;

use portcullis_embedder::Hypervisor;
use smmu_model::{Identity, Mode};

pub use configuration::{Configuration, Draws};
pub use schedule::{Order, Points, Schedule, Task, crowd};
pub use stage::Stage;
pub use stories::{AT_EVERY_POINT, STORIES, find};
pub use trace::Trace;
pub use world::{Device, Ends, Guest, HOLE, Process, VA, Wanted, World};

/// How much memory a machine has, if its story does not want more.
const BYTES: u64 = 1 << 20;

/// A story, and where it is played.
pub struct Story {
    /// Its name.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// Plays it.
    pub play: fn(&World<'_>),
    /// Where it makes sense, and why nowhere else.
    pub runs: Where,
    /// SMMUs that the host finds only during the story, beside those of the configuration.
    late_smmus: usize,
    /// How much memory the machine has.
    bytes: u64,
    /// What the SMMU of this number is, where the story wants it to be different.
    shape: fn(usize, Identity) -> Identity,
}

/// In which configurations a story is played.
pub enum Where {
    /// In all.
    Everywhere,
    /// Where this holds.
    Only {
        /// What must hold.
        holds: fn(&Configuration) -> bool,
        /// Why.
        because: &'static str,
    },
}

impl Story {
    const fn new(name: &'static str, about: &'static str, play: fn(&World<'_>)) -> Self {
        Self {
            name,
            about,
            play,
            runs: Where::Everywhere,
            late_smmus: 0,
            bytes: BYTES,
            shape: |_, identity| identity,
        }
    }

    /// Left out where `holds` does not, and why.
    const fn only(mut self, holds: fn(&Configuration) -> bool, because: &'static str) -> Self {
        self.runs = Where::Only { holds, because };
        self
    }

    const fn with_late_smmu(mut self) -> Self {
        self.late_smmus = 1;
        self
    }

    const fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    const fn with_shape(mut self, shape: fn(usize, Identity) -> Identity) -> Self {
        self.shape = shape;
        self
    }

    /// Whether it is played there.
    pub fn runs_in(&self, configuration: &Configuration) -> bool {
        match self.runs {
            Where::Everywhere => true,
            Where::Only { holds, .. } => holds(configuration),
        }
    }

    /// All configurations in which it is played.
    pub fn configurations(&self) -> Vec<Configuration> {
        let all = Configuration::all().into_iter();
        all.filter(|it| self.runs_in(it)).collect()
    }

    /// The configuration that a seed draws for it.
    pub fn draw(&self, seed: u64) -> Configuration {
        let mut choices = self.configurations();
        choices.swap_remove(Draws::new(seed).below(choices.len()))
    }
}

/// One run of a story.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The machine.
    pub configuration: Configuration,
    /// How hostile the model is.
    pub mode: Mode,
    /// Whether it tells itself, line by line, on stdout.
    pub tells: bool,
    /// Commands of this opcode do nothing: to see that a story can fail.
    pub swallows: Option<u8>,
}

impl Run {
    /// In a hoarding model, silent.
    pub const fn hoarding(configuration: Configuration) -> Self {
        Self {
            configuration,
            mode: Mode::Hoarding,
            tells: false,
            swallows: None,
        }
    }

    /// In a model that draws what it does, silent.
    pub const fn chaotic(configuration: Configuration, seed: u64) -> Self {
        Self {
            configuration,
            mode: Mode::Chaotic { seed },
            tells: false,
            swallows: None,
        }
    }
}

/// Plays a story once.
///
/// # Panics
///
/// If it does not hold: what was expected did not happen, the model objected, or something is left.
pub fn play(story: &Story, run: &Run) {
    let configuration = run.configuration;
    let count = configuration.smmus + story.late_smmus;
    let stage = Arc::new(Stage::new(run.tells, run.swallows));
    let identity = |smmu| (story.shape)(smmu, configuration.identity());
    let settings: Vec<_> = (0..count)
        .map(|smmu| world::model(identity(smmu), run.mode))
        .collect();
    let beside = Arc::clone(&stage) as Arc<dyn portcullis_embedder::Bystander>;
    let host = Hypervisor::with_bystander(&settings, story.bytes, beside);
    // What is told of a machine begins when it is taken over.
    let smmus: Vec<_> = (0..count)
        .map(|smmu| world::take_over(&host, smmu))
        .collect();
    stage.trace.watch(host.shared_machine(), count);
    let seed = match run.mode {
        Mode::Chaotic { seed } => seed,
        _ => 0,
    };
    // Where nothing is drawn by a seed, machines draw differently.
    let seed = seed << 8 | configuration.number() as u64;
    let is_chaotic = matches!(run.mode, Mode::Chaotic { .. });
    let known = (configuration.smmus, seed, is_chaotic);
    let world = World::new((&host, &stage), &smmus, configuration, known);
    (story.play)(&world);
    judge::close(world);
}
