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
    /// A device that writes where it is told, behind an SMMU that has what it takes.
    Device(fn(&Features) -> bool, WithDevice<P>),
    /// Two of them whose StreamIDs lie under different L1 descriptors: the first such pair.
    FarPair(WithTwo<P>),
    /// An NVMe controller.
    Nvme(WithNvme<P>),
    /// A test device with PASIDs, behind an SMMU with SubstreamIDs, if both have what it takes.
    Pasid(fn(&Features, &DmaTest<'_>) -> bool, WithTest<P>),
    /// All such devices behind one SMMU.
    Pasids(WithAll<P>),
    /// Two SMMUs with such devices behind them: the first two.
    TwoSmmus(WithTwoSmmus<P>),
}

/// One check.
pub(super) struct Check<P: Platform> {
    pub(super) name: &'static str,
    pub(super) parts: [Option<Part<P>>; 2],
}

const fn any(_: &Features) -> bool {
    true
}

const fn has_stage1(features: &Features) -> bool {
    features.has_stage1
}

/// Leaves change their size under DMA (IDR3.BBML).
const fn can_split(features: &Features) -> bool {
    features.bbm_level != 0
}

const fn any_test(_: &Features, _: &DmaTest<'_>) -> bool {
    true
}

fn can_stall(features: &Features, test: &DmaTest<'_>) -> bool {
    features.can_stall() && test.can_stall()
}

fn has_ats(features: &Features, test: &DmaTest<'_>) -> bool {
    ats::kinds(features).next().is_some() && test.has_atc()
}

/// The checks, in the order in which they run.
pub(super) const fn checks<P: Platform<Registers: Clone>>() -> [Check<P>; 25] {
    const fn check<P: Platform>(name: &'static str, part: Part<P>) -> Check<P> {
        Check {
            name,
            parts: [Some(part), None],
        }
    }
    const fn device<P: Platform>(name: &'static str, run: WithDevice<P>) -> Check<P> {
        check(name, Part::Device(any, run))
    }
    const fn nests<P: Platform>(name: &'static str, run: WithDevice<P>) -> Check<P> {
        check(name, Part::Device(has_stage1, run))
    }
    [
        device("unbound-stream-aborts", streams::unbound_aborts),
        device("stage2-dma", stage2::dma),
        device("stage2-fault-decoded", stage2::fault_decoded),
        device("stage2-unmap-blocks", stage2::unmap_blocks),
        device("stage2-protect-read-only", stage2::protect_read_only),
        check("nvme-identify-stage2", Part::Nvme(stage2::nvme_identify)),
        check(
            "block-split-under-dma",
            Part::Device(can_split, split::block_split),
        ),
        nests("nested-dma", nested::dma),
        nests("nested-fault-stage1", nested::fault_stage1),
        nests("nested-fault-stage2", nested::fault_stage2),
        check("nvme-identify-nested", Part::Nvme(nested::nvme_identify)),
        nests("window-is-sealed", nested::window_is_sealed),
        nests("retract-blocks", nested::retract_blocks),
        check("two-level-stream-table", Part::FarPair(streams::two_levels)),
        Check {
            name: "stream-handover-between-two-stage2s",
            parts: [
                Some(Part::Device(any, handover::between_two_stage2s)),
                Some(Part::Nvme(handover::of_nvme)),
            ],
        },
        device("event-overflow-survived", queues::overflow),
        device("illegal-command-recovered", queues::illegal_command),
        check("pasid-dma", Part::Pasid(any_test, pasid::dma)),
        check(
            "pasid-two-spaces-one-address",
            Part::Pasid(any_test, pasid::two_spaces_one_address),
        ),
        check(
            "pasid-out-of-range",
            Part::Pasid(any_test, pasid::out_of_range),
        ),
        check("pasid-release-blocks", Part::Pasids(release::blocks)),
        check(
            "pasid-stall-and-resume",
            Part::Pasid(can_stall, stalls::stall_and_resume),
        ),
        check("pasid-ats", Part::Pasid(has_ats, ats::ats)),
        check("two-smmus", Part::TwoSmmus(release::two_smmus)),
        device("shutdown-leaves-abort", streams::shutdown_aborts),
    ]
}
