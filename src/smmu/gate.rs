//! The gate: GBPA.ABORT, and SMMUEN off. What needs no memory, no tables and no queue.

use super::error::HandshakeTimeout;
use super::io::handshake;
use crate::hw::{Clock, Registers, TimedOut, wait_until};
use crate::spec::registers::{CR0, GBPA, offset};

/// How long a register may take to answer unless the caller says otherwise: 100 ms.
pub const REGISTER_TIMEOUT_US: u64 = 100_000;

/// Lets the gate fall: every transaction aborts, none is translated, none bypasses.
///
/// From any state that firmware or a crash left: first GBPA.ABORT, so that nothing is let through
/// the moment translation stops, then every enable off (§6.3.15, §6.3.9). Takes no memory; may be
/// called by a dying CPU, and again. Transactions that were accepted before may still end
/// (§6.3.9.6); cached configuration and translations stay until they are invalidated.
///
/// # Errors
///
/// [`HandshakeTimeout`] if GBPA or CR0 does not answer within `timeout_us`, each. The other of the
/// two was still tried, so all that could be closed is closed.
pub fn close_gate<R: Registers>(
    clock: &impl Clock,
    registers: &R,
    timeout_us: u64,
) -> Result<(), HandshakeTimeout> {
    let aborting = abort_bypass(clock, registers, timeout_us);
    let stopped = stop(clock, registers, timeout_us);
    aborting.and(stopped)
}

/// GBPA: wait until no update is under way, write the whole register with Update, wait again.
pub(super) fn abort_bypass<R: Registers>(
    clock: &impl Clock,
    registers: &R,
    timeout_us: u64,
) -> Result<(), HandshakeTimeout> {
    let settled = || {
        wait_until(clock, timeout_us, || {
            let value = registers.read32(offset::GBPA);
            (value & GBPA::UPDATE::SET.value == 0).then_some(value)
        })
        .map_err(|TimedOut { waited_us }| HandshakeTimeout {
            register: "GBPA",
            waited_us,
        })
    };
    let before = settled()?;
    let closed = before | GBPA::ABORT::SET.value;
    registers.write32(offset::GBPA, closed | GBPA::UPDATE::SET.value);
    settled().map(|_| ())
}

/// CR0 := 0. A change that is still under way comes first: a field may not be changed again before
/// it is acknowledged.
fn stop<R: Registers>(
    clock: &impl Clock,
    registers: &R,
    timeout_us: u64,
) -> Result<(), HandshakeTimeout> {
    let handled = (CR0::SMMUEN::SET
        + CR0::PRIQEN::SET
        + CR0::EVENTQEN::SET
        + CR0::CMDQEN::SET
        + CR0::ATSCHK::SET)
        .value;
    let settled = wait_until(clock, timeout_us, || {
        let difference = registers.read32(offset::CR0) ^ registers.read32(offset::CR0ACK);
        (difference & handled == 0).then_some(())
    });
    // Even if it never settled: writing 0 is the best that is left to do.
    let closed = handshake(
        clock,
        registers,
        "CR0",
        (offset::CR0, offset::CR0ACK),
        0,
        timeout_us,
    );
    settled
        .map_err(|TimedOut { waited_us }| HandshakeTimeout {
            register: "CR0",
            waited_us,
        })
        .and(closed)
}
