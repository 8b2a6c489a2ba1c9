//! One SMMU.
#![forbid(unsafe_code)]
