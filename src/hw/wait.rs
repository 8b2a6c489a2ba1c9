//! Every wait is bounded.

use super::Clock;

/// A wait ended because its time was up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut {
    /// How long it had waited, in microseconds.
    pub waited_us: u64,
}

/// Calls `poll` until it answers, at most `timeout_us` microseconds.
///
/// # Errors
///
/// [`TimedOut`] when the time is up. `poll` is asked once more after that, so that a CPU that was
/// held up meanwhile does not report a failure that never was.
pub fn wait_until<T>(
    clock: &impl Clock,
    timeout_us: u64,
    mut poll: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let start_us = clock.now_us();
    loop {
        let waited_us = clock.now_us().saturating_sub(start_us);
        if let Some(answer) = poll() {
            return Ok(answer);
        }
        if waited_us >= timeout_us {
            return Err(TimedOut { waited_us });
        }
        clock.relax();
    }
}
