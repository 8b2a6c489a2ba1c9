//! The end, when all guests have ended.

use core::sync::atomic::Ordering;

use portcullis::arch::{end, println};

use super::world::World;

/// All guests have ended.
pub(crate) fn all_over(world: &World) -> ! {
    println!("smmus: {} interrupts", world.pulled.load(Ordering::Relaxed));
    let Some(exam) = &world.exam else {
        end!("ok");
    };
    match exam.verdict(world) {
        Ok(()) => {
            println!("check guest-isolation: ok");
            end!("ok")
        }
        Err(why) => {
            println!("check guest-isolation: FAILED {why}");
            end!("guests are not kept apart: {why}")
        }
    }
}
