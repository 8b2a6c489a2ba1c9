//! What the image does with the library, in the order in which it happens.

pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod gates;
pub(crate) mod memory;
mod refusal;
pub(crate) mod report;
pub(crate) mod sites;

pub(crate) use refusal::Refusal;
