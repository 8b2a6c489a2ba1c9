//! Whole lives of guests, spaces and devices.
//!
//! | module | what |
//! |---|---|
//! | [`operation`] | what can be done, and what it may say |
//! | [`reference`](mod@reference) | what must be true afterwards, in a few hundred lines |
//! | [`world`] | the real library on the hostile model, and how the two are compared |
//! | [`graph`] | all states of a small world, and walks that try everything in each |
//! | [`host`] | the machine below: memory, ports, resets, and their faults |
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

pub mod graph;
pub mod host;
pub mod operation;
pub mod reference;
pub mod world;
