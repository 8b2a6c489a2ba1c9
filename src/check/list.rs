//! The checks, and who plays a part in each.

use super::dma::Dma;
use super::dma_test::DmaTest;
use super::nvme::NvmeFunction;
use super::run::Rig;
use super::{
    Failure, ats, handover, nested, pasid, queues, release, split, stage2, stalls, streams,
};
use crate::hw::Platform;
use crate::smmu::Features;

/// A check with one device.
pub(super) type WithDevice<P> =
    for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>, &'a dyn Dma<P>) -> Result<(), Failure>;
/// A check with two devices of one SMMU.
type WithTwo<P> = for<'a, 'm, 'p> fn(
    &'a Rig<'a, 'm, 'p, P>,
    &'a dyn Dma<P>,
    &'a dyn Dma<P>,
) -> Result<(), Failure>;
/// A check with an NVMe controller.
type WithNvme<P> =
    for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>, &'a NvmeFunction<'m>) -> Result<(), Failure>;

/// A check with a test device.
type WithTest<P> =
    for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>, &'a DmaTest<'m>) -> Result<(), Failure>;
/// A check with all devices behind one SMMU.
type WithAll<P> = for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>) -> Result<(), Failure>;
/// A check with the devices behind two SMMUs.
type WithTwoSmmus<P> =
    for<'a, 'm, 'p> fn(&'a Rig<'a, 'm, 'p, P>, &'a Rig<'a, 'm, 'p, P>) -> Result<(), Failure>;

/// Who plays a part in a check: it runs once with each.
pub(super) enum Part<P: Platform> {
    /// A device that writes where it is told.
    Device(WithDevice<P>),
    /// Two of them whose StreamIDs lie under different L1 descriptors: the first such pair.
    FarPair(WithTwo<P>),
    /// An NVMe controller.
    Nvme(WithNvme<P>),
    /// A test device with PASIDs, behind an SMMU with SubstreamIDs, that has what it takes.
    Pasid(fn(&DmaTest<'_>) -> bool, WithTest<P>),
    /// All test devices with PASIDs behind one SMMU with SubstreamIDs.
    Pasids(WithAll<P>),
    /// Two SMMUs with such devices behind them: the first two.
    TwoSmmus(WithTwoSmmus<P>),
}

/// One check.
pub(super) struct Check<P: Platform> {
    pub(super) name: &'static str,
    /// Whether an SMMU can do what the check is about.
    pub(super) needs: fn(&Features) -> bool,
    pub(super) parts: [Option<Part<P>>; 2],
}

const fn nothing(_: &Features) -> bool {
    true
}

const fn stage1(features: &Features) -> bool {
    features.has_stage1
}

/// What faults aborts, unless it is asked to stall (IDR0.STALL_MODEL is not 2).
fn aborts(features: &Features) -> bool {
    features.can_quiet()
}

fn stage1_and_aborts(features: &Features) -> bool {
    stage1(features) && aborts(features)
}

/// Leaves can change their size under DMA (IDR3.BBML).
const fn splits(features: &Features) -> bool {
    features.bbm_level != 0
}

fn stalls(features: &Features) -> bool {
    features.can_stall()
}

fn ats(features: &Features) -> bool {
    ats::kinds(features).next().is_some()
}

const fn any(_: &DmaTest<'_>) -> bool {
    true
}

/// The checks, in the order in which they run.
pub(super) const fn checks<P: Platform<Registers: Clone>>() -> [Check<P>; 25] {
    use Part::{Device, FarPair, Nvme, Pasid, Pasids, TwoSmmus};
    const fn check<P: Platform>(
        name: &'static str,
        needs: fn(&Features) -> bool,
        part: Part<P>,
    ) -> Check<P> {
        Check {
            name,
            needs,
            parts: [Some(part), None],
        }
    }
    [
        check(
            "unbound-stream-aborts",
            nothing,
            Device(streams::unbound_aborts),
        ),
        check("stage2-dma", nothing, Device(stage2::dma)),
        check(
            "stage2-fault-decoded",
            aborts,
            Device(stage2::fault_decoded),
        ),
        check("stage2-unmap-blocks", aborts, Device(stage2::unmap_blocks)),
        check(
            "stage2-protect-read-only",
            aborts,
            Device(stage2::protect_read_only),
        ),
        check("nvme-identify-stage2", nothing, Nvme(stage2::nvme_identify)),
        check("block-split-under-dma", splits, Device(split::block_split)),
        check("nested-dma", stage1, Device(nested::dma)),
        check(
            "nested-fault-stage1",
            stage1_and_aborts,
            Device(nested::fault_stage1),
        ),
        check(
            "nested-fault-stage2",
            stage1_and_aborts,
            Device(nested::fault_stage2),
        ),
        check("nvme-identify-nested", stage1, Nvme(nested::nvme_identify)),
        check(
            "window-is-sealed",
            stage1_and_aborts,
            Device(nested::window_is_sealed),
        ),
        check(
            "retract-blocks",
            stage1_and_aborts,
            Device(nested::retract_blocks),
        ),
        check(
            "two-level-stream-table",
            nothing,
            FarPair(streams::two_levels),
        ),
        Check {
            name: "stream-handover-between-two-stage2s",
            needs: nothing,
            parts: [
                Some(Device(handover::between_two_stage2s)),
                Some(Nvme(handover::of_nvme)),
            ],
        },
        check("event-overflow-survived", aborts, Device(queues::overflow)),
        check(
            "illegal-command-recovered",
            nothing,
            Device(queues::illegal_command),
        ),
        check("pasid-dma", aborts, Pasid(any, pasid::dma)),
        check(
            "pasid-two-spaces-one-address",
            aborts,
            Pasid(any, pasid::two_spaces_one_address),
        ),
        check(
            "pasid-out-of-range",
            nothing,
            Pasid(any, pasid::out_of_range),
        ),
        check("pasid-release-blocks", aborts, Pasids(release::blocks)),
        check(
            "pasid-stall-and-resume",
            stalls,
            Pasid(|test| test.can_stall(), stalls::stall_and_resume),
        ),
        check("pasid-ats", ats, Pasid(|test| test.has_atc(), ats::ats)),
        check("two-smmus", aborts, TwoSmmus(release::two_smmus)),
        check(
            "shutdown-leaves-abort",
            nothing,
            Device(streams::shutdown_aborts),
        ),
    ]
}
