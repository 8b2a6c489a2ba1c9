//! What the image does with the library, in the order in which it happens.

mod build;
pub(crate) mod cpu;
mod desk;
pub(crate) mod devices;
mod embedded;
mod ending;
pub(crate) mod gates;
pub(crate) mod guests;
pub(crate) mod hardware;
mod lines;
pub(crate) mod memory;
mod refusal;
pub(crate) mod report;
mod run;
mod running;
pub(crate) mod sites;
mod view;
mod world;

pub(crate) use refusal::Refusal;
