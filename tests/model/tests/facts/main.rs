//! Who tests the tester: one test for each legality rule, command and event.
//!
//! Each test states one rule of the architecture (IHI 0070 G.b) and assembles the words it needs by
//! hand from the positions in the manual; none of the model's own decoders or encoders is used. All
//! run in the polite mode unless a name says otherwise: what may be delayed or kept is tested by
//! what must *not* survive, what must not be lost, and what is counted, never by time.

mod ats;
mod attributes;
mod cd_legality;
mod commands;
mod events;
mod interrupts;
mod invalidation;
mod kit;
mod nested;
mod pri;
mod queues;
mod registers;
mod stage1;
mod stage2;
mod stalls;
mod ste_legality;
mod stream_table;
mod substreams;
