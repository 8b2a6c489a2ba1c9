//! Where one operation is played with one of its steps left out, and what is seen of that.

use std::cell::RefCell;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Frames, Platform};
use portcullis::id::{StreamId, SubstreamId};
use portcullis::smmu::Smmu;
use portcullis::space::{
    By, DeviceId, GuestConfig, GuestId, Handle, Iommu, Ownership, ResetPolicy, SpaceId,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::WalkCoherency;
use portcullis_proof::{Board, DATA, Space, Step, Tap, VA, Wanted, World, config, take_over_for};
use smmu_model::{Claim, Identity, Mode, Settings};

/// The device's own stream, and its alias.
pub(crate) const STREAM: StreamId = StreamId::new(0x110);
pub(crate) const ALIAS: StreamId = StreamId::new(0x111);
/// Another device's.
pub(crate) const OTHER: StreamId = StreamId::new(0x2117);
/// A stream in the same part of the stream table.
pub(crate) const NEIGHBOUR: StreamId = StreamId::new(0x130);

thread_local! {
    /// Where the newest panic of this thread was.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics of this test's plays noted and not printed.
pub(crate) fn note_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        if !at.starts_with("tests/proof/tests/necessity/main.rs") {
            PANICKED_AT.set(at);
        } else {
            before(info);
        }
    }));
}

/// How an operation is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) ats: Ats,
    pub(crate) can_stall: bool,
    pub(crate) is_coherent: bool,
    /// How much memory the machine has.
    pub(crate) bytes: u64,
}

/// An operation with what comes before and after it.
#[derive(Clone, Copy)]
pub(crate) struct Play {
    pub(crate) name: &'static str,
    pub(crate) setup: Setup,
    pub(crate) play: fn(&mut Stage<'_>),
}

/// What came of a play.
pub(crate) struct Outcome {
    /// The steps of the operation.
    pub(crate) steps: Vec<Step>,
    /// Whether the step that was to be left out came.
    pub(crate) came: bool,
    /// What was noticed; empty if nothing was.
    pub(crate) noticed: Vec<String>,
}

/// The place of one play.
pub(crate) struct Stage<'t> {
    pub(crate) tap: &'t Tap,
    pub(crate) setup: Setup,
    left_out: Option<Step>,
    steps: Vec<Step>,
    came: bool,
    surprises: Vec<String>,
}

impl Play {
    /// Plays it in `mode`, with one step of the operation left out if `left_out` says which.
    pub(crate) fn run(&self, mode: Mode, left_out: Option<Step>) -> Outcome {
        let identity = if self.setup.is_coherent {
            Identity::full()
        } else {
            Identity::incoherent()
        };
        let settings = Settings {
            atc_timeout_us: 200,
            ..Settings::new(identity, mode)
        };
        let tap = Tap::with_memory(self.setup.bytes, &[settings]);
        tap.poison();
        let start = tap.machine().record().mark();
        let mut stage = Stage {
            tap: &tap,
            setup: self.setup,
            left_out,
            steps: Vec::new(),
            came: false,
            surprises: Vec::new(),
        };
        let played = panic::catch_unwind(AssertUnwindSafe(|| (self.play)(&mut stage)));
        let Stage {
            steps,
            came,
            surprises: mut noticed,
            ..
        } = stage;
        if played.is_err() {
            // An expectation of the play; the library itself never panics.
            let at = PANICKED_AT.take();
            assert!(
                at.starts_with("tests/proof/"),
                "{}: panic at {at}",
                self.name
            );
            noticed.push(format!("the play ends at {at}"));
        }
        let trap = tap.trap().map(|trap| trap.as_u64());
        let record = tap.machine().record();
        let strays = record.landed_since(start).into_iter();
        noticed.extend(
            strays
                .filter(|it| Some(it.pa & !0xfff) == trap)
                .map(|it| format!("stream {:#x} lands in the trap", it.stream)),
        );
        let violations = record.violations();
        noticed.extend(
            violations
                .iter()
                .map(|it| format!("{:?}: {}", it.rule, it.what)),
        );
        Outcome {
            steps,
            came,
            noticed,
        }
    }
}

impl<'t> Stage<'t> {
    pub(crate) fn take_over(&self) -> Smmu<'t, Tap> {
        take_over_for(self.tap, 0, Some(1000))
    }

    /// The operation that the play is about.
    pub(crate) fn act<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (steps, came, result) = self.tap.without(self.left_out, work);
        self.steps = steps;
        self.came = came;
        result
    }

    /// As [`act`](Self::act), of what is to succeed.
    pub(crate) fn act_ok<R, E: Debug>(&mut self, work: impl FnOnce() -> Result<R, E>) -> Option<R> {
        let result = self.act(work);
        self.ok("the operation", result)
    }

    /// Notes what is not as it is to be.
    pub(crate) fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: T, wanted: T) {
        if found != wanted {
            self.surprises
                .push(format!("{what}: {found:x?}, not {wanted:x?}"));
        }
    }

    /// What is to succeed.
    pub(crate) fn ok<R, E: Debug>(&mut self, what: &str, result: Result<R, E>) -> Option<R> {
        match result {
            Ok(result) => Some(result),
            Err(error) => {
                self.surprises.push(format!("{what}: {error:?}"));
                None
            }
        }
    }

    pub(crate) fn claim(&self, claim: Claim) {
        self.tap.machine().claim(claim);
    }

    /// Gives frames of a guest's memory back to the host.
    pub(crate) fn free(&self, frames: impl IntoIterator<Item = Frames>) {
        frames.into_iter().for_each(|it| self.tap.free(it));
    }
}

/// A guest with a device of two streams, and another device; and a further guest.
pub(crate) struct Cast<'p> {
    pub(crate) world: World<'p>,
    pub(crate) smmu: &'p Smmu<'p, Tap>,
    pub(crate) guest: GuestId,
    pub(crate) next: GuestId,
    pub(crate) board: Board<'p>,
    pub(crate) other: Board<'p>,
    pub(crate) tokens: Vec<Ownership>,
}

impl<'p> Cast<'p> {
    /// Nothing is attached yet; `pasid_bits` of the devices.
    pub(crate) fn new(stage: &Stage<'p>, smmus: &'p [Smmu<'p, Tap>; 1], pasid_bits: u8) -> Self {
        let mut world = World::new(stage.tap, smmus);
        let coherency = if stage.setup.is_coherent {
            WalkCoherency::Coherent
        } else {
            WalkCoherency::Clean
        };
        let config = GuestConfig {
            coherency,
            ..config()
        };
        let [guest, next] =
            [(); 2].map(|()| world.iommu.create_guest(&config).expect("there is memory"));
        let _tables = world.lay_trap(guest);
        let wanted = |streams| Wanted {
            pasid_bits,
            ats: stage.setup.ats,
            can_stall: stage.setup.can_stall,
            // Where the host has no reset.
            reset: ResetPolicy::MayBeOmitted {
                because: "the board says so",
            },
            ..Wanted::new(0, streams)
        };
        let [board, other] = [&[STREAM, ALIAS][..], &[OTHER]].map(|streams| {
            let group = world.group();
            world.device(group, wanted(streams))
        });
        let tokens = vec![world.own(guest, board.group), world.own(guest, other.group)];
        // In the same part of the stream table.
        let (_, _token) = world.attached(next, Wanted::new(0, &[NEIGHBOUR]));
        // What an SMMU can know of the entries beside it, it knows from now on.
        for gun in board.guns.iter().chain(&other.guns) {
            gun.fire(None, DATA);
            gun.fire(Some(1), VA);
        }
        Self {
            world,
            smmu: &smmus[0],
            guest,
            next,
            board,
            other,
            tokens,
        }
    }

    /// With both devices attached.
    pub(crate) fn attached(
        stage: &Stage<'p>,
        smmus: &'p [Smmu<'p, Tap>; 1],
        (pasid_bits, untagged): (u8, Untagged),
    ) -> Self {
        let cast = Self::new(stage, smmus, pasid_bits);
        for device in [cast.board.id, cast.other.id] {
            let attached = cast.iommu().attach(cast.guest, device, untagged);
            attached.expect("attached");
        }
        cast
    }

    pub(crate) fn iommu(&self) -> &Iommu<'p, Tap> {
        &self.world.iommu
    }

    pub(crate) fn bind(&self, space: SpaceId, device: DeviceId) -> Handle {
        let bound = self.iommu().bind(self.guest, space, device, By::Pasid);
        bound.expect("bound")
    }

    /// A space that is bound to both devices, warm in every cache.
    pub(crate) fn bound(&mut self) -> (Space, [Frames; 3], [Handle; 2]) {
        let (space, frames) = self.world.space(self.guest);
        let handles = [self.board.id, self.other.id].map(|device| self.bind(space.id, device));
        self.warm(Some(space.pasid), VA);
        (space, frames, handles)
    }

    /// Has every stream use an address.
    pub(crate) fn warm(&self, pasid: Option<u32>, at: u64) {
        let guns = self.board.guns.iter().chain(&self.other.guns);
        for gun in guns {
            gun.fire(pasid, at);
        }
    }

    /// Where every stream of the device lands, and then that of the other.
    pub(crate) fn all(&self, pasid: Option<u32>, at: u64) -> [Option<Pa>; 3] {
        let [first, second] = [0, 1].map(|it| self.board.guns[it].hits(pasid, at));
        [first, second, self.other.guns[0].hits(pasid, at)]
    }

    /// The tags of a space that is bound to the device.
    pub(crate) fn tags(&self, space: Space) -> (u16, u16) {
        let walk = self.iommu().stage2_of(self.guest).expect("there");
        let substream = SubstreamId::new(space.pasid);
        let seen = self.smmu.explain(STREAM, substream, Iova::new(VA)).context;
        let asid = seen.expect("it is bound").asid;
        (walk.vmid.as_u16(), asid.as_u16())
    }

    /// Where the guest has `n` pages more.
    pub(crate) fn give(&self, n: u64) -> (Ipa, Vec<Frames>) {
        let at = DATA + (1 << 30);
        let pages = (0..n).map(|i| self.world.give(self.guest, Ipa::new(at + i * 0x1000)));
        (Ipa::new(at), pages.collect())
    }
}
