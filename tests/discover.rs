//! From firmware's device tree to a machine, or to a refusal.

#[path = "fixtures/dts.rs"]
mod dts;
#[path = "discover/fuzz.rs"]
mod fuzz;
#[path = "discover/golden.rs"]
mod golden;
#[path = "discover/refused.rs"]
mod refused;
#[path = "fixtures/trees.rs"]
mod trees;
