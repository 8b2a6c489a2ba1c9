//! Running the checks: each with every device that can play its part, and a line for each.

use core::cell::Cell;
use core::fmt;

use super::dma::Dma;
use super::dma_test::DmaTest;
use super::list::{Check, Part, checks};
use super::{Devices, Failure, Site, sabotage};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::smmu::{Features, probe};

/// StreamIDs under one L1 descriptor, as a power of two (§3.3.1): what `smmu` makes its arrays of.
const LOG2_ARRAY_STREAMS: u32 = 8;

/// How many checks held and how many did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Held.
    pub passed: u32,
    /// Did not.
    pub failed: u32,
}

/// One SMMU and its devices, while a check runs with one of them.
pub(super) struct Rig<'a, 'm, 'p, P: Platform> {
    pub(super) devices: &'a Devices<'m, 'p, P>,
    pub(super) site: &'a Site<'m, P>,
    pub(super) features: Features,
    /// The fault that this check asked for and that was not put in yet.
    pending: Cell<Option<sabotage::Hook>>,
}

/// A run that failed: with which device, and why.
struct Failed {
    place: usize,
    stream: StreamId,
    why: Failure,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, stream, why } = self;
        write!(f, "with stream {stream} of smmu {place}: {why}")
    }
}

/// Whether runs are made, or only counted.
#[derive(Clone, Copy)]
enum Mode {
    Count,
    Run(Option<sabotage::Hook>),
}

/// Runs every check and says one line each: `check NAME: ok`, or
/// `check NAME: FAILED with stream S of smmu N: why`; before the first `checks: NAME NAME ...`,
/// after the last `self-check: N passed, M failed`.
///
/// A check that no device of the machine can play a part in is not among them. `sabotaged` names the
/// check that gets its fault, if the devices have a [`Saboteur`](super::Saboteur).
pub fn run<P: Platform<Registers: Clone>>(
    devices: &Devices<'_, '_, P>,
    sabotaged: Option<&str>,
    say: &mut dyn FnMut(fmt::Arguments<'_>),
) -> Summary {
    let checks = checks::<P>();
    let is_possible = |check: &&Check<P>| !matches!(check_all(devices, check, Mode::Count), Ok(0));
    let possible = || checks.iter().filter(is_possible);
    say(format_args!(
        "checks:{}",
        Names(
            |f: &mut fmt::Formatter<'_>| possible().try_for_each(|check| write!(
                f,
                " {}",
                check.name
            ))
        )
    ));
    let mut summary = Summary::default();
    for check in possible() {
        let hook = if sabotaged == Some(check.name) {
            sabotage::hook_for(check.name)
        } else {
            None
        };
        match check_all(devices, check, Mode::Run(hook)) {
            Ok(_) => {
                summary.passed += 1;
                say(format_args!("check {}: ok", check.name));
            }
            Err(failed) => {
                summary.failed += 1;
                say(format_args!("check {}: FAILED {failed}", check.name));
            }
        }
    }
    let Summary { passed, failed } = summary;
    say(format_args!("self-check: {passed} passed, {failed} failed"));
    summary
}

struct Names<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Names<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// Makes all runs of `check` until one fails; says how many there are.
fn check_all<P: Platform<Registers: Clone>>(
    devices: &Devices<'_, '_, P>,
    check: &Check<P>,
    mode: Mode,
) -> Result<u32, Failed> {
    let mut count = 0;
    for site in devices.sites {
        let Some(rig) = Rig::new(devices, site).filter(|rig| (check.needs)(&rig.features)) else {
            continue;
        };
        let mut one = |stream: StreamId, run: &mut dyn FnMut() -> Result<(), Failure>| {
            count += 1;
            let Mode::Run(hook) = mode else {
                return Ok(());
            };
            rig.pending.set(hook);
            if !sabotage::waits(check.name) {
                rig.sabotage();
            }
            let outcome = run();
            rig.disarm();
            outcome.map_err(|why| Failed {
                place: site.place,
                stream,
                why,
            })
        };
        for part in check.parts.iter().flatten() {
            rig.each(part, &mut one)?;
        }
    }
    Ok(count)
}

type One<'f> =
    dyn FnMut(StreamId, &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failed> + 'f;

impl<'a, 'm, 'p, P: Platform<Registers: Clone>> Rig<'a, 'm, 'p, P> {
    /// `None` if the SMMU cannot be driven: that is refused by name before any check.
    fn new(devices: &'a Devices<'m, 'p, P>, site: &'a Site<'m, P>) -> Option<Self> {
        Some(Self {
            devices,
            site,
            features: probe(&site.registers, site.firmware).ok()?,
            pending: Cell::new(None),
        })
    }

    /// Hands `one` a run of `part` with each device behind the SMMU that can play it.
    fn each(&self, part: &Part<P>, one: &mut One<'_>) -> Result<(), Failed> {
        match part {
            Part::Device(run) => self
                .writers()
                .try_for_each(|device| one(device.stream(), &mut || run(self, device))),
            Part::FarPair(run) => match self.far_pair() {
                Some((near, far)) => one(near.stream(), &mut || run(self, near, far)),
                None => Ok(()),
            },
            Part::Nvme(run) => match &self.site.nvme {
                Some(nvme) => one(nvme.stream, &mut || run(self, nvme)),
                None => Ok(()),
            },
            Part::Pasid(is_enough, run) => self
                .with_pasids()
                .filter(|test| is_enough(test))
                .try_for_each(|test| one(test.stream(), &mut || run(self, test))),
            Part::Pasids(run) => match self.with_pasids().next() {
                Some(first) => one(first.stream(), &mut || run(self)),
                None => Ok(()),
            },
            Part::TwoSmmus(run) => match (self.with_pasids().next(), self.next_with_pasids()) {
                (Some(first), Some(other)) => one(first.stream(), &mut || run(self, &other)),
                _ => Ok(()),
            },
        }
    }

    /// The test devices with PASIDs, if the SMMU has SubstreamIDs.
    pub(super) fn with_pasids(&self) -> impl Iterator<Item = &'a DmaTest<'m>> + use<'a, 'm, 'p, P> {
        let has_any = self.features.has_stage1 && self.features.substream_bits != 0;
        let tests = self.site.tests.iter().flatten();
        tests.filter(move |test| has_any && test.pasid_bits() != 0)
    }

    /// The next SMMU that has such devices, if this is the first of all.
    fn next_with_pasids(&self) -> Option<Self> {
        let rigs = self.devices.sites.iter();
        let mut rigs = rigs
            .filter_map(|site| Self::new(self.devices, site))
            .filter(|rig| rig.with_pasids().next().is_some());
        let first = rigs.next()?;
        (first.site.place == self.site.place).then(|| rigs.next())?
    }

    /// The devices that write where they are told.
    fn writers(&self) -> impl Iterator<Item = &dyn Dma<P>> {
        let edus = self.site.edus.iter().flatten();
        let tests = self.site.tests.iter().flatten();
        edus.map(|edu| edu as &dyn Dma<P>)
            .chain(tests.map(|test| test as &dyn Dma<P>))
    }

    /// Two of them whose StreamIDs lie under different L1 descriptors.
    fn far_pair(&self) -> Option<(&dyn Dma<P>, &dyn Dma<P>)> {
        let array = |device: &dyn Dma<P>| device.stream().as_u32() >> LOG2_ARRAY_STREAMS;
        let near = self.writers().next()?;
        let far = self.writers().find(|far| array(*far) != array(near))?;
        self.features.has_two_level_streams.then_some((near, far))
    }

    /// Whether the stream table has arrays below L1 descriptors, made when they are needed.
    pub(super) fn has_arrays(&self) -> bool {
        let is_large = self.site.last_stream.as_u32() >> LOG2_ARRAY_STREAMS != 0;
        is_large && self.features.has_two_level_streams
    }
}

impl<'p, P: Platform> Rig<'_, '_, 'p, P> {
    /// Puts in the fault of this check, if it is to have one; called where it hurts.
    pub(super) fn sabotage(&self) {
        if let (Some(hook), Some(saboteur)) = (self.pending.take(), self.devices.saboteur) {
            (saboteur.arm)(hook);
        }
    }

    fn disarm(&self) {
        if let Some(saboteur) = self.devices.saboteur {
            (saboteur.disarm)();
        }
    }

    pub(super) const fn platform(&self) -> &'p P {
        self.devices.platform
    }
}
