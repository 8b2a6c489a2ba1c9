//! What can be done, and what it may say.

/// One step of a program. Guests, devices, spaces and handles are places, which are used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[expect(
    missing_docs,
    reason = "fields are places, and what is turned on or off"
)]
pub enum Op {
    /// Makes a guest, in a place where there is none.
    CreateGuest { guest: usize },
    /// Ends a guest.
    DestroyGuest { guest: usize },
    /// Gives a device to a guest.
    Acquire { guest: usize, device: usize },
    /// Takes it back, if somebody has the token.
    Disown { device: usize },
    /// Attaches a device; what has no PASID goes through stage 2, or aborts.
    Attach {
        guest: usize,
        device: usize,
        stage2: bool,
    },
    /// Detaches it.
    Detach { guest: usize, device: usize },
    /// Makes a space, in a place where there is none.
    CreateSpace { guest: usize, space: usize },
    /// Releases it.
    Release { guest: usize, space: usize },
    /// Releases all of a guest's.
    ReleaseAll { guest: usize },
    /// Binds a space; the handle goes to the first free place.
    Bind {
        guest: usize,
        space: usize,
        device: usize,
        whole: bool,
    },
    /// Drops a handle.
    Unbind { guest: usize, handle: usize },
    /// Has devices forget what they cached of a space.
    Invalidate { guest: usize, space: usize },
    /// Takes a page from a guest, and gives it another one in its place.
    Remap { guest: usize },
    /// Resets a device for its guest.
    Reset { guest: usize, device: usize },
    /// Resets a device for the host, and brings it back.
    Restore { device: usize },
    /// Lets so much time pass in silence that every quarantine ends.
    Wait,
    /// Stops an SMMU.
    Halt { smmu: usize },
    /// Brings it back.
    Recover { smmu: usize },
    /// From now on no CMD_SYNC of an SMMU completes; or they do again.
    Mute { smmu: usize, on: bool },
    /// From now on a device keeps its translations and says nothing; or it obeys again.
    Silence { device: usize, on: bool },
    /// From now on a device cannot be reset; or it can again.
    Jam { device: usize, on: bool },
}

impl Op {
    /// The same, with every place replaced.
    pub fn at_places(
        mut self,
        guests: impl Fn(usize) -> usize,
        devices: impl Fn(usize) -> usize,
        spaces: impl Fn(usize) -> usize,
        handles: impl Fn(usize) -> usize,
    ) -> Self {
        let (guest, device, space, handle) = self.places();
        for (place, new) in [
            (guest, &guests as &dyn Fn(usize) -> usize),
            (device, &devices),
            (space, &spaces),
            (handle, &handles),
        ] {
            if let Some(place) = place {
                *place = new(*place);
            }
        }
        self
    }

    fn places(&mut self) -> Places<'_> {
        match self {
            Self::CreateGuest { guest }
            | Self::DestroyGuest { guest }
            | Self::ReleaseAll { guest }
            | Self::Remap { guest } => (Some(guest), None, None, None),
            Self::Acquire { guest, device }
            | Self::Attach { guest, device, .. }
            | Self::Detach { guest, device }
            | Self::Reset { guest, device } => (Some(guest), Some(device), None, None),
            Self::CreateSpace { guest, space }
            | Self::Release { guest, space }
            | Self::Invalidate { guest, space } => (Some(guest), None, Some(space), None),
            Self::Bind {
                guest,
                space,
                device,
                ..
            } => (Some(guest), Some(device), Some(space), None),
            Self::Unbind { guest, handle } => (Some(guest), None, None, Some(handle)),
            Self::Disown { device }
            | Self::Restore { device }
            | Self::Silence { device, .. }
            | Self::Jam { device, .. } => (None, Some(device), None, None),
            Self::Wait | Self::Halt { .. } | Self::Recover { .. } | Self::Mute { .. } => {
                (None, None, None, None)
            }
        }
    }
}

/// Of a guest, a device, a space and a handle.
type Places<'a> = (
    Option<&'a mut usize>,
    Option<&'a mut usize>,
    Option<&'a mut usize>,
    Option<&'a mut usize>,
);

/// Why an operation did not do what it was asked: [`SpaceError`](portcullis::space::SpaceError) by
/// name, without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are those of `SpaceError`")]
pub enum Why {
    NoSuchGuest,
    NoSuchSpace,
    NoSuchHandle,
    ForeignSpace,
    ForeignHandle,
    NotOwner,
    Owned,
    StaleOwnership,
    GroupAttached,
    Attached,
    NotAttached,
    Bound,
    Fenced,
    SmmuDown,
    GuestEnding,
    Released,
    AlreadyReleased,
    BoundOtherwise,
    PublishOverLive,
    Stream,
    NotConfirmed,
    NotRecovered,
    CachesKept,
    NotReset,
}

impl Why {
    /// Whether an error is this one.
    pub fn is(self, error: &portcullis::space::SpaceError) -> bool {
        let (said, own) = (format!("{error:?}"), format!("{self:?}"));
        said.split([' ', '(']).next() == Some(own.as_str())
    }
}
