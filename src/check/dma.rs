//! A device that writes and reads memory where it is told: what most checks need.

use super::Failure;
use crate::addr::Iova;
use crate::hw::Platform;
use crate::id::{Pasid, StreamId};

/// Where a device goes, as it puts it on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The address.
    pub(super) iova: Iova,
    /// Whose address it is, if the device says so.
    pub(super) pasid: Option<Pasid>,
}

impl Place {
    /// `iova` of the address space that has `pasid`.
    pub(super) const fn of(pasid: Pasid, iova: Iova) -> Self {
        Self {
            iova,
            pasid: Some(pasid),
        }
    }
}

impl From<Iova> for Place {
    /// Without a PASID.
    fn from(iova: Iova) -> Self {
        Self { iova, pasid: None }
    }
}

/// A device that writes and reads memory where it is told.
pub(super) trait Dma<P: Platform> {
    /// The StreamID of its traffic.
    fn stream(&self) -> StreamId;

    /// Writes `value` to the four bytes at `place`, a multiple of 4; over when it returns, whether
    /// or not it reached memory.
    fn write(&self, platform: &P, place: Place, value: u16) -> Result<(), Failure>;

    /// Copies `bytes` bytes, within one page of 4 KiB each, from `from` to `to`, through a buffer of
    /// its own.
    fn copy(&self, platform: &P, from: Iova, to: Iova, bytes: u64) -> Result<(), Failure>;

    /// Why the board lets it change owners without a reset, if it does.
    fn without_reset(&self) -> Option<&'static str>;

    /// Makes it as it was at power-on.
    fn reset(&self, platform: &P) -> Result<(), Failure>;
}
