//! The library on the model of an SMMU, with everything counted that it does.
//!
//! | room | what |
//! |---|---|
//! | [`host`] | a host that writes down every command and every wait |
//! | [`world`] | guests, devices and spaces, as many as are wanted |
//! | [`syncs`] | SYNCs, waits and commands of each operation |
//! | [`sizes`] | bytes at rest and per object |
//! | [`overlap`] | a release over SMMUs whose SYNC takes a while |
//! | [`contention`], [`turns`] | threads that bind and release, in model time |
//!
//! Every number here is exact, and the same in every run.

pub mod contention;
pub mod host;
pub mod overlap;
pub mod sizes;
pub mod syncs;
pub mod turns;
pub mod world;
