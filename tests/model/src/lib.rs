//! A strict and hostile model of an Arm SMMUv3 with SubstreamIDs.
//!
//! It decodes real bytes in memory and real register writes, keeps what the architecture lets an
//! SMMU keep, uses it for as long as the architecture lets it be used, and objects by name where a
//! driver breaks a rule. It is written from the architecture (IHI 0070 G.b; § numbers are of it)
//! and shares no constant with any driver.
//!
//! A host test makes a [`Machine`]: memory with a driver's and a device's view, model time, and
//! one or more [`Smmu`]s. The driver's stores, barriers and register accesses go through it;
//! devices submit [`Transaction`]s. Whoever brings its own memory, such as an emulator's plugin,
//! implements [`Memory`] and makes [`Smmu`]s over it.
//!
//! `ARCHITECTURE.md` beside this crate tells where everything is.

#![forbid(unsafe_code)]

mod ats;
mod attributes;
pub mod bench;
mod bits;
mod cache;
mod cd;
mod claims;
mod command;
mod control;
mod core;
mod decode;
mod descriptor;
pub mod device;
mod entry;
mod event;
mod event_queue;
mod execute;
mod fault;
mod format;
mod grants;
mod host;
mod hostile;
mod ids;
mod interrupt;
mod invalidate;
mod leads;
mod machine;
mod memory;
mod objection;
mod peek;
mod permission;
mod prefetch;
mod pri;
mod queue;
mod reading;
mod record;
mod registers;
mod route;
mod smmu;
mod stage1;
mod stage2;
mod stall;
mod ste;
mod story;
mod stream;
mod strict;
mod substream;
mod transaction;
mod translate;
mod unknown;
mod update;
mod violation;
mod watch;

pub use ats::{AtcInvalidation, AtsAnswer, AtsGrant, Endpoint, InvalidationAnswer};
pub use attributes::{Attributes, Cacheability, MemoryType, Shareability};
pub use claims::Claim;
pub use event::{Class, Event, EventType};
pub use fault::{Faults, Fetch};
pub use host::{Barrier, Coherence, HostMemory, Visibility};
pub use hostile::Mode;
pub use ids::{Identity, StallModel};
pub use interrupt::{Interrupt, Line};
pub use machine::Machine;
pub use memory::{Abort, Memory};
pub use pri::{PageRequest, PageResponse, ResponseCode};
pub use record::{Landing, Mark, Record};
pub use registers::offset;
pub use smmu::{Settings, Smmu};
pub use stall::Finished;
pub use story::{Origin, Story, StoryLine};
pub use transaction::{Access, Kind, Outcome, Transaction};
pub use violation::{Rule, Violation};
