//! The heart.
#![forbid(unsafe_code)]
