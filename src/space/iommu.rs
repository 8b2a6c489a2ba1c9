//! All SMMUs of a machine, and all that is known of who may use them.

use spin::Once;

use super::books::Books;
use super::error::SpaceError;
use super::ids::{GuestId, MAX_SMMUS, SmmuId, SmmuSet, SpaceId};
use super::numbers::Numbers;
use super::settings::IommuSettings;
use super::streams::StreamMap;
use crate::hw::{Guard, Lock, Platform, Slab, TimedOut, wait_until};
use crate::smmu::{Features, Smmu};

/// VMID 0 is nobody's.
const FIRST_VMID: u32 = 1;
const VMID_BITS: u8 = 16;

/// All SMMUs of a machine: what guests, their address spaces and their devices go through.
///
/// A value and no static: there may be several side by side. Every method takes `&self`, may be
/// called from any CPU at any time, and is bounded. Dropping it leaves hardware as it is.
pub struct Iommu<'p, P: Platform> {
    platform: &'p P,
    settings: IommuSettings,
    smmus: [Once<&'p Smmu<'p, P>>; MAX_SMMUS],
    books: Lock<Books<'p, P>>,
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// One without SMMUs, guests or devices.
    ///
    /// # Errors
    ///
    /// [`NoFrames`](SpaceError::NoFrames).
    pub fn new(platform: &'p P, settings: IommuSettings) -> Result<Self, SpaceError> {
        let vmids = Numbers::new(platform, FIRST_VMID, VMID_BITS).map_err(SpaceError::of_vmid)?;
        Ok(Self {
            platform,
            settings,
            smmus: [const { Once::new() }; MAX_SMMUS],
            books: Lock::new(Books {
                guests: Slab::new(platform),
                groups: Slab::new(platform),
                devices: Slab::new(platform),
                spaces: Slab::new(platform),
                bindings: Slab::new(platform),
                handles: Slab::new(platform),
                stalls: Slab::new(platform),
                vmids,
                streams: StreamMap::new(platform),
                down: SmmuSet::EMPTY,
                heard_to_us: [0; MAX_SMMUS],
                is_discovery_over: false,
                recoveries: 0,
            }),
        })
    }

    /// Adds an SMMU that was taken over.
    ///
    /// # Errors
    ///
    /// [`SmmuTaken`](SpaceError::SmmuTaken).
    pub fn add_smmu(&self, id: SmmuId, smmu: &'p Smmu<'p, P>) -> Result<(), SpaceError> {
        let slot = self.smmus.get(id.index()).ok_or(SpaceError::NoSuchSmmu)?;
        let mut is_new = false;
        slot.call_once(|| {
            is_new = true;
            smmu
        });
        if is_new {
            Ok(())
        } else {
            Err(SpaceError::SmmuTaken)
        }
    }

    /// Says that no SMMU will be added any more: who waits for one is refused from now on.
    pub fn end_discovery(&self) {
        self.books().is_discovery_over = true;
    }

    pub(super) fn into_books(self) -> Books<'p, P> {
        self.books.into_inner()
    }

    pub(super) const fn platform(&self) -> &'p P {
        self.platform
    }

    pub(super) const fn settings(&self) -> &IommuSettings {
        &self.settings
    }

    pub(super) fn now_us(&self) -> u64 {
        self.platform.now_us()
    }

    /// The books; to be let go before anything is waited for.
    pub(super) fn books(&self) -> Guard<'_, Books<'p, P>> {
        self.books.lock(self.platform)
    }

    pub(super) fn smmu(&self, id: SmmuId) -> Result<&'p Smmu<'p, P>, SpaceError> {
        let slot = self.smmus.get(id.index());
        let smmu = slot.and_then(Once::get).ok_or(SpaceError::NoSuchSmmu)?;
        Ok(*smmu)
    }

    /// Those of `set` that are there.
    pub(super) fn each(
        &self,
        set: SmmuSet,
    ) -> impl Iterator<Item = (SmmuId, &'p Smmu<'p, P>)> + '_ {
        set.iter().filter_map(|id| Some((id, self.smmu(id).ok()?)))
    }

    /// All that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = (SmmuId, &'p Smmu<'p, P>)> + '_ {
        self.each(SmmuSet::ALL)
    }

    /// The least that all SMMUs have of what `bits` says.
    pub(super) fn least(&self, bits: impl Fn(&Features) -> u8) -> u8 {
        let all = self.all().map(|(_, smmu)| bits(smmu.features()));
        all.min().unwrap_or(u8::MAX)
    }

    /// Looks into the books until there is an answer.
    pub(super) fn until<T>(
        &self,
        mut look: impl FnMut(&mut Books<'p, P>) -> Result<Option<T>, SpaceError>,
    ) -> Result<T, SpaceError> {
        let found = wait_until(self.platform, self.settings.wait_us, || {
            look(&mut self.books()).transpose()
        });
        found.unwrap_or_else(|TimedOut { waited_us }| Err(SpaceError::Busy { waited_us }))
    }

    /// Begins an operation on a guest's space, beside others on other spaces of the guest, as soon
    /// as `look` gives what it is to work on.
    ///
    /// `look` sees the books as they are when the operation begins.
    pub(super) fn join<T>(
        &self,
        guest: GuestId,
        space: Option<SpaceId>,
        mut look: impl FnMut(&mut Books<'p, P>) -> Result<T, SpaceError>,
    ) -> Result<(T, Visit<'_, 'p, P>), SpaceError> {
        let found = self.until(|books| {
            let is_free = books.running(guest)?.gate.may_join();
            let is_idle = match space {
                Some(space) => !books.space(guest, space)?.is_busy,
                None => true,
            };
            if !is_free || !is_idle {
                return Ok(None);
            }
            let found = look(books)?;
            books.guest(guest)?.gate.users += 1;
            if let Some(space) = space {
                books.space(guest, space)?.is_busy = true;
            }
            Ok(Some(found))
        })?;
        let visit = Visit {
            iommu: self,
            guest,
            space,
            is_alone: false,
        };
        Ok((found, visit))
    }

    /// Begins an operation that has a guest to itself, as soon as those that are under way are done.
    pub(super) fn alone<T>(
        &self,
        guest: GuestId,
        mut look: impl FnMut(&mut Books<'p, P>) -> Result<T, SpaceError>,
    ) -> Result<(T, Visit<'_, 'p, P>), SpaceError> {
        self.books().guest(guest)?.gate.waiting += 1;
        let found = self.until(|books| {
            let gate = &mut books.guest(guest)?.gate;
            if gate.is_alone || gate.users != 0 {
                return Ok(None);
            }
            let found = look(books)?;
            books.guest(guest)?.gate.is_alone = true;
            Ok(Some(found))
        });
        if let Ok(guest) = self.books().guest(guest) {
            guest.gate.waiting = guest.gate.waiting.saturating_sub(1);
        }
        let visit = || Visit {
            iommu: self,
            guest,
            space: None,
            is_alone: true,
        };
        found.map(|found| (found, visit()))
    }
}

/// Who is at work on a guest.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Gate {
    /// Operations that bear each other.
    pub(super) users: u32,
    /// One that bears nobody.
    pub(super) is_alone: bool,
    /// How many wait to be alone: nobody else begins meanwhile.
    pub(super) waiting: u32,
}

impl Gate {
    const fn may_join(self) -> bool {
        !self.is_alone && self.waiting == 0
    }
}

/// An operation under way; dropping it ends it.
///
/// Never dropped while the books are locked.
pub(super) struct Visit<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    guest: GuestId,
    space: Option<SpaceId>,
    is_alone: bool,
}

impl<P: Platform> Drop for Visit<'_, '_, P> {
    fn drop(&mut self) {
        let mut books = self.iommu.books();
        if let Some(space) = self.space
            && let Some(space) = books.spaces.get_mut(space.key())
        {
            space.is_busy = false;
        }
        if let Ok(guest) = books.guest(self.guest) {
            if self.is_alone {
                guest.gate.is_alone = false;
            } else {
                guest.gate.users = guest.gate.users.saturating_sub(1);
            }
        }
    }
}
