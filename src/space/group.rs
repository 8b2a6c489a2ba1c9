//! Groups of devices, and who owns them.
//!
//! A group is what cannot be told apart or kept apart: aliases, and functions that reach each other
//! without passing the SMMU. It has one owner or none, and the proof of that is a value:
//! [`Ownership`]. What cannot be shown cannot be given up, so no count can be wrong.
//!
//! ```text
//! Unowned ──acquire──► Owned ──disown──► Unowned
//!     └────acquire──► Deferred ──the SMMU comes, settle──► Owned
//!                        ├──discovery ends without it, settle──► refused, Unowned
//!                        └──dropped──► Unowned
//! ```
//!
//! The token of one group is no claim to another's, and it is spent once:
//!
//! ```compile_fail,E0382
//! # use portcullis::{hw::Platform, space::{Iommu, Ownership}};
//! fn spend<P: Platform>(iommu: &Iommu<'_, P>, token: Ownership, other: Ownership) {
//!     let _ = iommu.disown(token);
//!     let _ = iommu.disown(token);
//! }
//! ```
//!
//! ```
//! # use portcullis::{hw::Platform, space::{Iommu, Ownership}};
//! fn spend<P: Platform>(iommu: &Iommu<'_, P>, token: Ownership, other: Ownership) {
//!     let _ = iommu.disown(token);
//!     let _ = iommu.disown(other);
//! }
//! ```
//!
//! It is not copied, so that two could show it:
//!
//! ```compile_fail,E0599
//! # use portcullis::space::Ownership;
//! fn share(token: Ownership) {
//!     let _ = token.clone();
//! }
//! ```
//!
//! ```
//! # use portcullis::space::Ownership;
//! fn share(token: Ownership) {
//!     let _ = token.group();
//! }
//! ```
//!
//! and not made up: only [`Iommu::acquire`] and [`Claim::settle`] give one.
//!
//! ```compile_fail,E0451
//! # use portcullis::space::{Owner, Ownership};
//! fn take(token: Ownership) -> Ownership {
//!     Ownership { owner: Owner::Host, ..token }
//! }
//! ```
//!
//! ```
//! # use portcullis::space::{Owner, Ownership};
//! fn take(token: Ownership) -> Ownership {
//!     token
//! }
//! ```
//!
//! A claim is no token:
//!
//! ```compile_fail,E0308
//! # use portcullis::{hw::Platform, space::{Claim, Iommu}};
//! fn give_up<P: Platform>(iommu: &Iommu<'_, P>, claim: Claim<'_, '_, P>) {
//!     let _ = iommu.disown(claim);
//! }
//! ```
//!
//! ```
//! # use portcullis::{hw::Platform, space::{Claim, Iommu}};
//! fn give_up<P: Platform>(iommu: &Iommu<'_, P>, claim: Claim<'_, '_, P>) {
//!     let _ = claim.settle();
//! }
//! ```

use core::fmt;

use super::books::{Books, OfGroup};
use super::device::Device;
use super::error::SpaceError;
use super::ids::{DeviceId, GroupId, GuestId};
use super::iommu::Iommu;
use super::list::List;
use super::settings::{Owner, ResetPolicy};
use crate::hw::Platform;

/// How many devices a group can have.
pub const MAX_GROUP_DEVICES: usize = 16;

/// One group.
pub(super) struct Group<'p, P: Platform> {
    pub(super) devices: List<Device<'p, P>, OfGroup>,
    state: State,
    /// Goes up with each acquisition and claim: a token is of one of them.
    generation: u64,
    /// Who had it last.
    last: Option<Owner>,
    /// Its devices are being reset for a new owner.
    is_changing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Unowned,
    Deferred(Owner),
    Owned(Owner),
}

/// Where a group stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    /// Nobody has it.
    Unowned,
    /// Somebody claims it, and an SMMU is awaited.
    Deferred(Owner),
    /// It has an owner.
    Owned(Owner),
    /// A device of it is behind no SMMU: nobody but the host can have it.
    Unprotected,
}

/// Proof that somebody owns a group.
///
/// Dropping it keeps the group owned for ever; [`Iommu::disown`] gives it up.
#[must_use = "a group whose token is lost cannot be given up"]
#[derive(PartialEq, Eq, Debug)]
pub struct Ownership {
    group: GroupId,
    generation: u64,
    owner: Owner,
}

impl Ownership {
    /// The group.
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// Who owns it.
    pub const fn owner(&self) -> Owner {
        self.owner
    }
}

/// What [`Iommu::acquire`] gave.
#[must_use]
#[derive(Debug)]
pub enum Acquired<'a, 'p, P: Platform> {
    /// The group.
    Owned(Ownership),
    /// The first claim to it: an SMMU is awaited.
    Deferred(Claim<'a, 'p, P>),
}

/// A claim to a group whose SMMU is awaited. Dropping it withdraws it.
#[must_use = "dropping it withdraws the claim"]
pub struct Claim<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    group: GroupId,
    generation: u64,
    owner: Owner,
}

impl<P: Platform> fmt::Debug for Claim<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("group", &self.group)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// A token that was not taken back, and why.
#[must_use = "the group stays owned"]
#[derive(Debug)]
pub struct Kept {
    /// The token.
    pub token: Ownership,
    /// Why.
    pub error: SpaceError,
}

impl<P: Platform> Group<'_, P> {
    pub(super) fn is_owned(&self) -> bool {
        matches!(self.state, State::Owned(_))
    }

    pub(super) fn is_owned_by(&self, guest: GuestId) -> bool {
        self.state == State::Owned(Owner::Guest(guest)) && !self.is_changing
    }
}

/// What a group lacks before it can be owned.
enum Lack {
    /// An SMMU that may still come.
    Smmu,
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Makes a group, without devices, that nobody owns.
    ///
    /// # Errors
    ///
    /// [`Full`](SpaceError::Full), [`NoFrames`](SpaceError::NoFrames).
    pub fn add_group(&self) -> Result<GroupId, SpaceError> {
        let group = Group {
            devices: List::default(),
            state: State::Unowned,
            generation: 0,
            last: None,
            is_changing: false,
        };
        let key = self.books().groups.insert(group).map_err(|(_, why)| why)?;
        Ok(GroupId::of(key))
    }

    /// Gives a group that nobody owns to `owner`.
    ///
    /// Its streams abort before and after; a device that another owner had, the host too, attached or
    /// not, is reset first, within the host's bound. While an SMMU of the group is awaited there is only a claim, and the first
    /// one wins.
    ///
    /// # Errors
    ///
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup), [`NoSuchGuest`](SpaceError::NoSuchGuest),
    /// [`GuestEnding`](SpaceError::GuestEnding), [`Owned`](SpaceError::Owned),
    /// [`Unprotected`](SpaceError::Unprotected) for a guest, [`NeverCame`](SpaceError::NeverCame),
    /// [`Fenced`](SpaceError::Fenced). [`NotReset`](SpaceError::NotReset): nobody owns the group,
    /// the device is fenced, its streams abort.
    pub fn acquire(&self, group: GroupId, owner: Owner) -> Result<Acquired<'_, 'p, P>, SpaceError> {
        let generation = {
            let mut books = self.books();
            let lack = self.check_acquire(&mut books, group, owner)?;
            let record = books.group(group)?;
            record.generation += 1;
            let generation = record.generation;
            match lack {
                Some(Lack::Smmu) => {
                    record.state = State::Deferred(owner);
                    return Ok(Acquired::Deferred(Claim {
                        iommu: self,
                        group,
                        generation,
                        owner,
                    }));
                }
                None => {
                    record.state = State::Owned(owner);
                    record.is_changing = true;
                    generation
                }
            }
        };
        self.make_owned(group, generation, owner)
            .map(Acquired::Owned)
    }

    /// The group is marked as the new owner's, and as changing: resets what another one used.
    fn make_owned(
        &self,
        group: GroupId,
        generation: u64,
        owner: Owner,
    ) -> Result<Ownership, SpaceError> {
        let outcome = self.reset_for(group, owner);
        let mut books = self.books();
        let record = books.group(group)?;
        record.is_changing = false;
        match outcome {
            Ok(()) => {
                record.last = Some(owner);
                for device in books.members(group).into_iter().flatten() {
                    // Whoever has it may give it work, attached or not.
                    books.device(device)?.is_dirty = true;
                }
                Ok(Ownership {
                    group,
                    generation,
                    owner,
                })
            }
            Err(error) => {
                record.state = State::Unowned;
                Err(error)
            }
        }
    }

    fn reset_for(&self, group: GroupId, owner: Owner) -> Result<(), SpaceError> {
        let (members, is_same) = {
            let mut books = self.books();
            let is_same = books.group(group)?.last == Some(owner);
            (books.members(group), is_same)
        };
        for device in members.into_iter().flatten() {
            let (tag, policy, is_needed) = {
                let mut books = self.books();
                let record = books.device(device)?;
                (record.tag, record.reset, record.is_dirty && !is_same)
            };
            if !is_needed {
                continue;
            }
            match (self.platform().reset_device(tag), policy) {
                (Ok(()), _) => self.books().device(device)?.is_dirty = false,
                (Err(_), ResetPolicy::MayBeOmitted { .. }) => {}
                (Err(why), ResetPolicy::Needed) => {
                    self.books().device(device)?.is_fenced = true;
                    return Err(SpaceError::NotReset {
                        device,
                        because: why.because,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_acquire(
        &self,
        books: &mut Books<'p, P>,
        group: GroupId,
        owner: Owner,
    ) -> Result<Option<Lack>, SpaceError> {
        if let Owner::Guest(guest) = owner {
            books.running(guest)?;
        }
        if books.group(group)?.state != State::Unowned {
            return Err(SpaceError::Owned);
        }
        self.lack(books, group, owner)
    }

    fn lack(
        &self,
        books: &mut Books<'p, P>,
        group: GroupId,
        owner: Owner,
    ) -> Result<Option<Lack>, SpaceError> {
        let mut lack = None;
        let is_over = books.is_discovery_over;
        for device in books.members(group).into_iter().flatten() {
            let record = books.device(device)?;
            if record.is_fenced {
                return Err(SpaceError::Fenced);
            }
            match record.smmu {
                None if owner == Owner::Host => {}
                None => return Err(SpaceError::Unprotected { device }),
                Some(smmu) if self.smmu(smmu).is_ok() => {}
                Some(smmu) if is_over => {
                    return Err(SpaceError::NeverCame { smmu });
                }
                Some(_) => lack = Some(Lack::Smmu),
            }
        }
        Ok(lack)
    }

    /// Gives a group up. Its streams abort; nothing of its former owner is freed by that.
    ///
    /// # Errors
    ///
    /// [`Kept`], with the token in it: [`StaleOwnership`](SpaceError::StaleOwnership) if its owner,
    /// a guest, is gone and the group with it; [`GroupAttached`](SpaceError::GroupAttached).
    pub fn disown(&self, token: Ownership) -> Result<(), Kept> {
        match self.books().disown(&token) {
            Ok(()) => Ok(()),
            Err(error) => Err(Kept { token, error }),
        }
    }

    /// Where a group stands.
    ///
    /// # Errors
    ///
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup).
    pub fn group_state(&self, group: GroupId) -> Result<GroupState, SpaceError> {
        let mut books = self.books();
        let state = books.group(group)?.state;
        let members = books.members(group);
        let is_unprotected = members.into_iter().flatten().any(|device| {
            books
                .device(device)
                .is_ok_and(|device| device.smmu.is_none())
        });
        Ok(match state {
            State::Owned(owner) => GroupState::Owned(owner),
            _ if is_unprotected => GroupState::Unprotected,
            State::Deferred(owner) => GroupState::Deferred(owner),
            State::Unowned => GroupState::Unowned,
        })
    }
}

impl<P: Platform> Books<'_, P> {
    fn disown(&mut self, token: &Ownership) -> Result<(), SpaceError> {
        let group = self.group(token.group)?;
        let is_current = group.generation == token.generation
            && group.state == State::Owned(token.owner)
            && !group.is_changing;
        if !is_current {
            return Err(SpaceError::StaleOwnership);
        }
        if let Some(device) = self.attached_member(token.group) {
            return Err(SpaceError::GroupAttached { device });
        }
        self.group(token.group)?.state = State::Unowned;
        Ok(())
    }

    fn attached_member(&mut self, group: GroupId) -> Option<DeviceId> {
        let members = self.members(group);
        members.into_iter().flatten().find(|device| {
            self.device(*device)
                .is_ok_and(|device| device.guest.is_some())
        })
    }

    /// The groups of a guest that is no more are nobody's; tokens for them are stale.
    pub(super) fn orphan_groups_of(&mut self, guest: GuestId) {
        for slot in 0..self.groups.slots() {
            if let Some(key) = self.groups.key_at(slot)
                && let Some(group) = self.groups.get_mut(key)
                && matches!(group.state, State::Owned(owner) | State::Deferred(owner)
                    if owner == Owner::Guest(guest))
            {
                group.state = State::Unowned;
            }
        }
    }
}

/// What became of a [`Claim`].
#[must_use]
#[derive(Debug)]
pub enum Settled<'a, 'p, P: Platform> {
    /// It is the group's owner's now.
    Owned(Ownership),
    /// An SMMU is still awaited.
    Waiting(Claim<'a, 'p, P>),
}

impl<'a, 'p, P: Platform> Claim<'a, 'p, P> {
    /// Asks again: whether the group's SMMUs are there now.
    ///
    /// # Errors
    ///
    /// [`NeverCame`](SpaceError::NeverCame) when discovery ended without one, and everything
    /// [`Iommu::acquire`] refuses. The claim is gone then.
    pub fn settle(self) -> Result<Settled<'a, 'p, P>, SpaceError> {
        let (iommu, group, generation, owner) =
            (self.iommu, self.group, self.generation, self.owner);
        {
            let mut books = iommu.books();
            let record = books.group(group)?;
            if (record.state, record.generation) != (State::Deferred(owner), generation) {
                return Err(SpaceError::StaleOwnership);
            }
            if iommu.lack(&mut books, group, owner)?.is_some() {
                drop(books);
                return Ok(Settled::Waiting(self));
            }
            let record = books.group(group)?;
            record.state = State::Owned(owner);
            record.is_changing = true;
        }
        iommu
            .make_owned(group, generation, owner)
            .map(Settled::Owned)
    }
}

impl<P: Platform> Drop for Claim<'_, '_, P> {
    fn drop(&mut self) {
        if let Ok(record) = self.iommu.books().group(self.group)
            && (record.state, record.generation) == (State::Deferred(self.owner), self.generation)
        {
            record.state = State::Unowned;
        }
    }
}
