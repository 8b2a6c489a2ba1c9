//! The last words: every way out of the image leads through here.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::cpu::Mutex;
use super::one_line::OneLine;
use super::{console, cpu, mmu, psci};

/// What is called before the end, to leave the SMMUs shut.
pub type Hook = &'static (dyn Fn() + Sync);

static HOOK: Mutex<Option<Hook>> = Mutex::new(None);

/// The affinity of the CPU that ends the image, and [`TAKEN`]; 0 before.
static ENDING: AtomicU64 = AtomicU64::new(0);
const TAKEN: u64 = 1 << 63;

/// How many endings that CPU has begun; touched by it alone.
static TURN: AtomicU32 = AtomicU32::new(0);

static HOOK_CALLED: AtomicBool = AtomicBool::new(false);

/// Set when all that can be said is said: an exception after that has nowhere to go.
static SAID: AtomicBool = AtomicBool::new(false);

/// Has `hook` called once, by the first CPU that ends the image, whatever the reason.
///
/// A later hook replaces an earlier one. It must return in bounded time, and it may be called at
/// any point of the code, with any lock held: it takes none. It may print.
pub fn on_death(hook: Hook) {
    *HOOK.lock() = Some(hook);
}

/// Ends the image: has the hook called, prints `end: REASON` as the last line, powers off.
///
/// REASON is one line, whatever `reason` contains.
pub fn end(reason: fmt::Arguments<'_>) -> ! {
    Ending::begin().end(reason)
}

/// The image's panic handler: says what happened and where, then [`end`].
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    let ending = Ending::begin();
    ending.report(format_args!("{info}"));
    ending.end(format_args!("panic: {}", info.message()))
}

/// The image is ending: from now on no line waits for ever.
///
/// An exception or a panic on the way out begins another ending, which does less: the hook and the
/// power are worth more than words, and a console that faults must not keep us here.
pub(super) struct Ending {
    /// Which ending this is, from 1.
    turn: u32,
}

impl Ending {
    /// Begins to end the image. Of several CPUs the first does, and the others stay here, so as
    /// not to cut it short.
    pub(super) fn begin() -> Self {
        // With the caches off there is one CPU, and atomics may not work.
        if mmu::is_on() {
            let me = cpu::affinity() | TAKEN;
            let taken = ENDING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_err_and(|other| other != me) {
                cpu::park();
            }
        }
        let turn = TURN.load(Ordering::Relaxed) + 1;
        TURN.store(turn, Ordering::Relaxed);
        match turn {
            1 => {}
            2 | 3 => call_hook(),
            _ => psci::power_off(),
        }
        Self { turn }
    }

    /// Prints what happened, at length.
    pub(super) fn report(&self, text: fmt::Arguments<'_>) {
        if self.turn <= 2 {
            console::print(text);
        }
    }

    /// As [`end`].
    pub(super) fn end(self, reason: fmt::Arguments<'_>) -> ! {
        call_hook();
        console::print(format_args!("end: {}", OneLine(reason)));
        SAID.store(true, Ordering::Relaxed);
        psci::power_off()
    }
}

/// Whether the image is ending.
pub(super) fn has_begun() -> bool {
    ENDING.load(Ordering::Relaxed) != 0
}

/// Whether the last line is printed.
pub(super) fn nothing_left_to_say() -> bool {
    SAID.load(Ordering::Relaxed)
}

/// Calls the hook, unless it was called.
fn call_hook() {
    if !mmu::is_on() || HOOK_CALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    // Held only for the copy; if it is held, it is by a CPU that stopped in between.
    let hook = HOOK.try_lock().and_then(|hook| *hook);
    if let Some(hook) = hook {
        hook();
    }
}

/// Ends the image with a reason, formatted as by [`format_args!`].
#[macro_export]
#[doc(hidden)]
macro_rules! __arch_end {
    ($($reason:tt)*) => { $crate::arch::end(format_args!($($reason)*)) };
}
