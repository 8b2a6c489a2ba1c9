//! What the programs of `differential-programs` show on the model, and what they showed on QEMU's
//! SMMUv3, compared.

#![forbid(unsafe_code)]

mod log;
mod model;

pub use log::{Log, ProgramLog};
pub use model::run_on_model;
