//! Who tests the tester: one test for each legality rule, command and event.
//!
//! Each test states one rule of the architecture (IHI 0070 G.b) and assembles the words it needs by
//! hand from the positions in the manual; none of the model's own decoders or encoders is used. The
//! legality rules run in every mode, the others in the polite mode unless they say otherwise.

mod ats;
mod ats_traffic;
mod attributes;
mod cd_legality;
mod commands;
mod configuration;
mod events;
mod interrupts;
mod invalidation;
mod kit;
mod nested;
mod pri;
mod queues;
mod registers;
mod stage1;
mod stage1_permissions;
mod stage2;
mod stalls;
mod ste_legality;
mod stream_table;
mod substreams;
mod tags;
