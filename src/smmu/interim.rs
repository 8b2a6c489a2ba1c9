//! Interim.
#![allow(missing_docs, reason = "interim")]
use super::Smmu;
use super::command_queue::Ticket;
use super::contexts::{Context, Contexts};
use super::error::CommandError;
use super::gather::Gathered;
use super::invalidate::Train;
use crate::addr::Iova;
use crate::hw::Platform;
use crate::id::{Asid, StreamId, Vmid};
use crate::spec::command::Command;
use crate::spec::vmsa::Granule;
use core::ops::Deref;

pub struct Stage1Stale {
    pub vmid: Vmid,
    pub asid: Asid,
    pub promises_no_global: bool,
    pub granule: Option<Granule>,
}
pub struct PendingInvalidation<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    train: Train,
}
pub struct PendingStage1<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    ticket: Ticket,
}
impl<P: Platform> PendingInvalidation<'_, '_, P> {
    pub fn finish(self) -> Result<(), CommandError> {
        self.train.wait(self.smmu)
    }
}
impl<P: Platform> PendingStage1<'_, '_, P> {
    pub fn finish(self) -> Result<(), CommandError> {
        self.smmu.wait(self.ticket)
    }
}
impl<'p, P: Platform> Smmu<'p, P> {
    pub fn begin_invalidate(
        &self,
        gathered: &Gathered,
        _: impl Iterator<Item = StreamId> + Clone,
    ) -> Result<PendingInvalidation<'_, 'p, P>, CommandError> {
        Ok(PendingInvalidation {
            smmu: self,
            train: Train::submit(self, gathered),
        })
    }
    pub fn begin_invalidate_stage1<C: Deref<Target = Contexts<'p, P>>>(
        &self,
        stale: &Stage1Stale,
        _: &[(Iova, u64)],
        _: impl Iterator<Item = (C, Context)> + Clone,
    ) -> Result<PendingStage1<'_, 'p, P>, CommandError> {
        let ticket = self.submit(&[&[Command::tlbi_nh_all(stale.vmid)]])?;
        Ok(PendingStage1 { smmu: self, ticket })
    }
}
