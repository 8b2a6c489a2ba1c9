//! What the programs of `differential-programs` show on the model, and what they showed on QEMU's
//! SMMUv3, compared.
//!
//! Both must show the same, line by line, save for the [`exceptions()`]: each names its programs,
//! the lines that differ, and why. A difference that is not named is a failure, and so is an
//! exception that is not needed, or not needed as it stands.

#![forbid(unsafe_code)]

mod compare;
mod exceptions;
mod log;
mod model;

pub use compare::{Verdict, compare};
pub use exceptions::{Exception, Source, exceptions};
pub use log::{Log, ProgramLog};
pub use model::{run_on, run_on_model};
