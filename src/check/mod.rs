//! The self-check: does this machine's SMMU do what Portcullis relies upon, under real devices?
//!
//! Each check takes the SMMU over afresh, moves real data, and leaves it shut. A check that fails
//! says why in one line and the others go on. That each *can* fail is shown with one fault put in
//! below the driver ([`sabotage`]).
//!
//! What QEMU's SMMU cannot miss is not shown here: a CMD_SYNC left out, a barrier, a break before a
//! make, a register changed before it was acknowledged (it acts at once, and TCG has no caches). Those are for the
//! model.
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its explanation, nothing here allocates, and failures are few"
)]

mod bench;
pub mod edu;
mod failure;
mod handover;
pub mod nvme;
mod queues;
pub mod sabotage;
mod split;
mod stage2;
mod streams;

use core::cell::Cell;
use core::fmt;

pub use edu::Edu;
pub use failure::Failure;
pub use nvme::Nvme;

use crate::discover::Rid;
use crate::hw::{CpuTlb, Mmio, Platform};
use crate::id::StreamId;
use crate::pci::Ecam;
use crate::smmu::Firmware;

/// How many edu functions are used.
pub const MAX_EDUS: usize = 4;

/// The devices that the checks have to work with, all behind one SMMU, all with bus mastering on.
pub struct Devices<'m, 'p, P: Platform> {
    /// The platform.
    pub platform: &'p P,
    /// The SMMU's registers; the SMMU itself is shut.
    pub registers: P::Registers,
    /// What firmware says of the SMMU.
    pub firmware: Firmware,
    /// The highest StreamID there is.
    pub last_stream: StreamId,
    /// Bits of a physical address that the CPU has.
    pub cpu_output_bits: u8,
    /// How the CPUs are told to forget a stage 2.
    pub cpu_tlb: &'p dyn CpuTlb,
    /// The edu functions, by StreamID.
    pub edus: [Option<Edu<'m>>; MAX_EDUS],
    /// An NVMe controller and its stream.
    pub nvme: Option<(Nvme<&'m Mmio>, StreamId)>,
    /// Where that controller's configuration space is.
    pub nvme_function: Option<(&'m Ecam<Mmio>, Rid)>,
    /// Why the board lets edu functions change owners without a reset, if it does.
    pub edu_without_reset: Option<&'static str>,
    /// Where faults can be put in, if the image was built for it.
    pub saboteur: Option<Saboteur>,
}

/// How a fault is put in below the driver.
#[derive(Clone, Copy)]
pub struct Saboteur {
    /// Lets the hook look at every store to shared memory and SMMU register from now on.
    pub arm: fn(sabotage::Hook),
    /// Ends that.
    pub disarm: fn(),
}

type Run<P> = for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>) -> Result<(), Failure>;

/// One check.
struct Check<P: Platform> {
    name: &'static str,
    run: Run<P>,
}

/// The checks, in the order in which they run.
const fn checks<P: Platform<Registers: Clone>>() -> [Check<P>; 12] {
    const fn check<P: Platform>(name: &'static str, run: Run<P>) -> Check<P> {
        Check { name, run }
    }
    [
        check("unbound-stream-aborts", streams::unbound_aborts),
        check("stage2-dma", stage2::dma),
        check("stage2-fault-decoded", stage2::fault_decoded),
        check("stage2-unmap-blocks", stage2::unmap_blocks),
        check("stage2-protect-read-only", stage2::protect_read_only),
        check("nvme-identify-stage2", stage2::nvme_identify),
        check("block-split-under-dma", split::block_split),
        check("two-level-stream-table", streams::two_levels),
        check(
            "stream-handover-between-two-stage2s",
            handover::between_two_stage2s,
        ),
        check("event-overflow-survived", queues::overflow),
        check("illegal-command-recovered", queues::illegal_command),
        check("shutdown-leaves-abort", streams::shutdown_aborts),
    ]
}

/// How many checks held and how many did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Held.
    pub passed: u32,
    /// Did not.
    pub failed: u32,
}

/// Whether `name` is a check that a fault can be put in for.
pub fn can_sabotage(name: &str) -> bool {
    sabotage::hook_for(name).is_some()
}

/// The devices, while one check runs.
struct Rig<'a, 'm, 'p, P: Platform> {
    devices: &'a Devices<'m, 'p, P>,
    /// The fault that this check asked for and that was not put in yet.
    pending: Cell<Option<sabotage::Hook>>,
}

/// Runs every check and says one line each: `check NAME: ok`, or `check NAME: FAILED why`; before
/// the first `checks: NAME NAME ...`, after the last `self-check: N passed, M failed`.
///
/// `sabotaged` names the check that gets its fault, if the devices have a [`Saboteur`].
pub fn run<P: Platform<Registers: Clone>>(
    devices: &Devices<'_, '_, P>,
    sabotaged: Option<&str>,
    say: &mut dyn FnMut(fmt::Arguments<'_>),
) -> Summary {
    let checks = checks::<P>();
    say(format_args!("checks:{}", Names(&checks)));
    let mut summary = Summary::default();
    for check in &checks {
        let hook = if sabotaged == Some(check.name) {
            sabotage::hook_for(check.name)
        } else {
            None
        };
        let rig = Rig {
            devices,
            pending: Cell::new(hook),
        };
        if !sabotage::waits(check.name) {
            rig.sabotage();
        }
        let outcome = (check.run)(&rig);
        if let Some(saboteur) = devices.saboteur {
            (saboteur.disarm)();
        }
        match outcome {
            Ok(()) => {
                summary.passed += 1;
                say(format_args!("check {}: ok", check.name));
            }
            Err(why) => {
                summary.failed += 1;
                say(format_args!("check {}: FAILED {why}", check.name));
            }
        }
    }
    let Summary { passed, failed } = summary;
    say(format_args!("self-check: {passed} passed, {failed} failed"));
    summary
}

struct Names<'a, P: Platform>(&'a [Check<P>]);

impl<P: Platform> fmt::Display for Names<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|check| write!(f, " {}", check.name))
    }
}

impl<'m, 'p, P: Platform> Rig<'_, 'm, 'p, P> {
    /// Puts in the fault of this check, if it is to have one; called where it hurts.
    fn sabotage(&self) {
        if let (Some(hook), Some(saboteur)) = (self.pending.take(), self.devices.saboteur) {
            (saboteur.arm)(hook);
        }
    }

    fn platform(&self) -> &'p P {
        self.devices.platform
    }

    fn edu(&self, index: usize) -> Result<&Edu<'m>, Failure> {
        let edus = self.devices.edus.iter().flatten();
        edus.clone()
            .nth(index)
            .ok_or(Failure::Missing("edu function"))
    }

    /// An edu whose StreamID has another L1 descriptor than the first one's.
    fn far_edu(&self) -> Result<&Edu<'m>, Failure> {
        let bus = |edu: &Edu<'_>| edu.stream().as_u32() >> 8;
        let near = bus(self.edu(0)?);
        let mut edus = self.devices.edus.iter().flatten();
        edus.find(|edu| bus(edu) != near)
            .ok_or(Failure::Missing("edu function on another bus"))
    }

    fn nvme(&self) -> Result<(&Nvme<&'m Mmio>, StreamId), Failure> {
        match &self.devices.nvme {
            Some((nvme, stream)) => Ok((nvme, *stream)),
            None => Err(Failure::Missing("NVMe controller")),
        }
    }
}
