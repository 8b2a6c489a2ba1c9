//! The heart: guests, their address spaces, and the devices that reach them; and how each is taken
//! away while devices keep firing.
//!
//! | room | what |
//! |---|---|
//! | [`Iommu`] | all of it: the value that a host has |
//! | `group`, `device`, `guest` | who there is, who owns what |
//! | `attach`, `bind`, `release`, `end`, `reset`, `map` | what is done, in the user's words |
//! | `books`, `lives`, `list` | where everything stands; no hardware |
//! | `faults`, `fence`, `recover`, `upkeep` | what devices and SMMUs do wrong |
//! | [`stage2`], [`window`] | a guest's memory, and where its CDs are seen |
//! | [`nesting`], [`handover`] | the same steps one by one, for a host that keeps its own books |
//!
//! A space is bound to a device by its PASID, or by the whole stream; a binding counts its handles.
//! Release ends what the space is to devices, at once, whoever holds handles; a handle reserves the
//! number, until the last is dropped.
//!
//! # What it takes
//!
//! In pages of 4 KiB; `tests/proof` holds it (its test `memory`).
//!
//! | what | memory |
//! |---|---|
//! | a space | a record, 15 in a page |
//! | its numbers | a page for each 128 PASIDs, and for each 128 ASIDs, that a guest ever had at once; these stay |
//! | a binding | a record, 20 in a page |
//! | a handle | a record, 46 in a page |
//! | a group, a device | a record each, 30 and 12 in a page; 4 KiB for each 192 streams |
//! | a guest | a record, 2 in a page; 5 pages where its addresses have 40 bits; its tables |
//! | a device that is attached | none by stage 2 alone; for up to 64 PASIDs 2 pages, 4096 3 pages, 65,536 7 pages |
//! | its CDs | a page for each 64 PASIDs of which one is bound; with more than 16 bits of PASID, 16 pages for each 1024 |
//!
//! Records come in pieces that double: 1 page, 2, 4, and so on; the last one goes back when it is
//! empty. What ends, ends without asking for memory.
//!
//! # Locks
//!
//! In this order, and none of them is held across a wait:
//!
//! 1. an SMMU's event reader;
//! 2. the books;
//! 3. a device's contexts, or a guest's memory.
//!
//! What waits, waits with its objects marked as busy in the books: who wants one of them waits for
//! it, within a bound, and for no other.
#![forbid(unsafe_code)]

mod attach;
mod bind;
mod books;
mod device;
mod end;
mod error;
mod faults;
mod fence;
mod group;
mod guest;
pub mod handover;
mod hosted;
mod ids;
mod iommu;
mod leftovers;
mod list;
mod lives;
mod look;
mod map;
mod memory;
pub mod nesting;
mod numbers;
mod recover;
mod release;
mod reset;
mod settings;
pub mod stage2;
mod stop;
mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod upkeep;
mod walk;
pub mod window;

pub use bind::PasidOf;
pub use books::SpaceState;
pub use error::{Fence, Quantity, SpaceError};
pub use faults::{Answer, Fault, FaultKind};
pub use group::{Acquired, Claim, GroupState, Kept, MAX_GROUP_DEVICES, Ownership, Settled};
pub use guest::GuestLife;
pub use hosted::{HostChange, HostedConfig, NotMapped, Unconfirmed, WindowFault, WindowWanted};
pub use ids::{DeviceId, FaultId, GroupId, GuestId, Handle, MAX_SMMUS, SmmuId, SmmuSet, SpaceId};
pub use iommu::Iommu;
pub use look::{Counts, DeviceSeen, DeviceState, Reached, SpaceSeen};
pub use map::MAX_RANGES;
pub use numbers::{Ask, NoNumber};
pub use release::PendingRelease;
pub use settings::{
    By, DeviceDescription, GuestConfig, IommuSettings, Owner, Quota, ResetPolicy, SpaceConfig,
};
pub use upkeep::Serviced;
