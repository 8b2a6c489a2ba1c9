//! What an SMMU has devices do: forget translations, and go on after a stall (§4.5, §4.7).

use super::{Command, SID, SSID};
use crate::addr::Iova;
use crate::id::{StreamId, SubstreamId};
use crate::spec::bits::Field;

const GLOBAL: Field = Field::bit(9);
const SSV: Field = Field::bit(11);
const ATC_SIZE: Field = Field::bits(69, 64);
const INPUT_PAGE: Field = Field::bits(127, 76);
const ACTION: Field = Field::bit(12);
const ABORT: Field = Field::bit(13);
const STAG: Field = Field::bits(79, 64);

/// `Size` of a CMD_ATC_INV that covers all of 2^64 bytes (§4.5.1).
const ATC_SIZE_ALL: u64 = 52;

/// How a stalled transaction is answered (§4.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeAction {
    /// It is tried again, as if it had just arrived.
    Retry,
    /// It ends as if it had been done: reads give zero, writes have no effect. Where IDR0.TERM_MODEL
    /// is 1 that does not exist, and it aborts.
    Terminate,
    /// It aborts.
    Abort,
}

/// Invalidations of what devices cached (ATS), only where IDR0.ATS is 1.
///
/// Translations of the SMMU's own are to be gone before, by a CMD_SYNC of their own (§4.5.1). A
/// device may answer that it knows no such request: that completes the command without an error
/// and without a guarantee (§3.9.1.5).
impl Command {
    /// CMD_ATC_INV of everything: has `stream`'s device drop every translation without a PASID that
    /// it cached. §4.5.1.
    pub const fn atc_inv_all(stream: StreamId) -> Self {
        Self::atc_inv(stream, None).with(ATC_SIZE, ATC_SIZE_ALL)
    }

    /// CMD_ATC_INV of everything of every PASID (`G == 1`), only where IDR1.SSIDSIZE is not 0.
    /// §4.5.1.
    ///
    /// A device without Global Invalidate (a bit of its ATS capability) takes it for PASID 0 alone:
    /// of such a one each PASID is to be named. What it holds without a PASID stays.
    pub const fn atc_inv_all_substreams(stream: StreamId) -> Self {
        Self::new(0x40)
            .with(SID, stream.as_u32() as u64)
            .with(SSV, 1)
            .with(GLOBAL, 1)
            .with(ATC_SIZE, ATC_SIZE_ALL)
    }

    /// CMD_ATC_INV of everything of one PASID, only where IDR1.SSIDSIZE is not 0. §4.5.1.
    pub const fn atc_inv_substream(stream: StreamId, substream: SubstreamId) -> Self {
        Self::atc_inv(stream, Some(substream)).with(ATC_SIZE, ATC_SIZE_ALL)
    }

    /// CMD_ATC_INV of the smallest span that a command can name and that has `first` and `last` in
    /// it, of one PASID or of none. §4.5.1.
    ///
    /// A span is a power of two, 4 KiB or more, aligned to its size; one that crosses a large power
    /// of two becomes as large.
    pub const fn atc_inv_range(
        stream: StreamId,
        substream: Option<SubstreamId>,
        first: Iova,
        last: Iova,
    ) -> Self {
        let first = first.as_u64() >> 12;
        let size = 64 - (first ^ last.as_u64() >> 12).leading_zeros() as u64;
        let command = Self::atc_inv(stream, substream).with(ATC_SIZE, size);
        // 52 bits of page number: at the largest size nothing of it is left.
        command.with(INPUT_PAGE, first >> size << size)
    }

    const fn atc_inv(stream: StreamId, substream: Option<SubstreamId>) -> Self {
        let command = Self::new(0x40).with(SID, stream.as_u32() as u64);
        match substream {
            Some(substream) => command.with(SSV, 1).with(SSID, substream.as_u32() as u64),
            None => command,
        }
    }

    /// CMD_RESUME: answers the transaction of `stream` that stalled with the tag `stag`; nothing
    /// happens if there is none. Not where IDR0.STALL_MODEL is 1. §4.7.1.
    pub const fn resume(stream: StreamId, stag: u16, action: ResumeAction) -> Self {
        let (retries, aborts) = match action {
            ResumeAction::Retry => (1, 0),
            ResumeAction::Terminate => (0, 0),
            ResumeAction::Abort => (0, 1),
        };
        Self::new(0x44)
            .with(SID, stream.as_u32() as u64)
            .with(ACTION, retries)
            .with(ABORT, aborts)
            .with(STAG, stag as u64)
    }

    /// CMD_STALL_TERM: ends every stalled transaction of `stream`, with an abort. Not where
    /// IDR0.STALL_MODEL is 1. §4.7.2.
    ///
    /// Only while everything of the stream aborts at once, confirmed: by an entry that is not valid
    /// or whose Config is 0, a CMD_CFGI_STE and a CMD_SYNC. Their tags are free from then on, so
    /// none of them may be answered any more.
    pub const fn stall_term(stream: StreamId) -> Self {
        Self::new(0x45).with(SID, stream.as_u32() as u64)
    }

    /// The stream that a command of this kind, or a CMD_CFGI of a stream's, is for.
    pub const fn stream(&self) -> StreamId {
        StreamId::new(SID.get(&self.words()) as u32)
    }
}
