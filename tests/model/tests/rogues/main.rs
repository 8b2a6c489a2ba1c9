//! The rogues' gallery: drivers that are wrong in exactly one step, each caught by name.
//!
//! [`driver`] is a complete right driver whose operations are lists of steps; a [`gallery::Rogue`]
//! is a story, one edit of one list, and the name of what gives it away. Each test shows that the
//! right driver tells the same story without breaking a rule, in the polite and the hoarding mode
//! and in 16 chaotic seeds or all up to the one in which the rogue was caught.

mod driver;
mod gallery;
mod necessity;
mod right;
mod rogue_commands;
mod rogue_contents;
mod rogue_entries;
mod rogue_registers;
mod rogue_release;
mod rogue_tables;
mod step;
mod stories;
mod words;
