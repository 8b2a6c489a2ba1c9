//! One fault for each check, put in below the driver: so that the tests see each check fail.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Pa;

/// Looks at a store to shared memory or a register, and says what is stored in its place; `None`:
/// nothing.
pub type Hook = fn(at: Pa, value: u64) -> Option<u64>;

const OPCODE_S2_IPA: u64 = 0x2a;
const OPCODE_S12_VMALL: u64 = 0x28;
const OPCODE_NH_ALL: u64 = 0x10;
const OPCODE_SYNC: u64 = 0x46;
const OPCODE_RESERVED: u64 = 0xff;

/// Where a register of an SMMU is within its page of 64 KiB, whatever SMMU and page it is.
///
/// Those asked for here lie at odd multiples of 4, where no 64-bit word of memory does.
const fn register(at: Pa) -> u64 {
    at.as_u64() & 0xffff
}

/// Stage 2: a leaf of 4 KiB, by its low bits: page, access flag, inner shareable, write-back.
const fn is_page(value: u64) -> bool {
    value & 0xf3f == 0x73f & 0xf3f
}

/// Stage 1: a leaf that everybody may read and write and nobody execute.
const fn is_guest_page(value: u64) -> bool {
    value & 0xfff0_0000_0000_0fff == 0x0060_0000_0000_0f43
}

/// Entries that abort become entries that let everything through untranslated.
fn bypass_unused(at: Pa, value: u64) -> Option<u64> {
    const BYPASS: u64 = 0b1001;
    Some(if value == 0 && at.is_aligned(6) {
        BYPASS
    } else {
        value
    })
}

/// Pages are mapped one page further on.
fn shift_pages(_: Pa, value: u64) -> Option<u64> {
    Some(if is_page(value) {
        value + 0x1000
    } else {
        value
    })
}

/// Pages are mapped read-only.
fn write_protect_pages(_: Pa, value: u64) -> Option<u64> {
    Some(if is_page(value) {
        value & !(1 << 7)
    } else {
        value
    })
}

/// The event queue is placed where there is no memory.
fn misplace_events(_: Pa, value: u64) -> Option<u64> {
    const WRITE_ALLOCATE: u64 = 1 << 62;
    const LOG2_EVENTS: u64 = 11;
    const NOWHERE: u64 = 1 << 43;
    let is_event_queue = value >> 56 == WRITE_ALLOCATE >> 56 && value & 0x1f == LOG2_EVENTS;
    Some(if is_event_queue {
        value | NOWHERE
    } else {
        value
    })
}

/// Whether this is the first word of a command of which the low 12 bits are `opcode`: it lies at a
/// multiple of 16, as no index register of a queue does.
const fn is_command(opcode: u64, at: Pa, value: u64) -> bool {
    at.is_aligned(4) && value & 0xfff == opcode
}

/// A CMD_SYNC in place of a command of which the low 12 bits are `opcode`, and the second word 0.
const fn sync_for(opcode: u64, at: Pa, value: u64) -> u64 {
    if is_command(opcode, at, value) {
        OPCODE_SYNC
    } else {
        value
    }
}

/// TLB invalidations become CMD_SYNCs.
fn forget_tlbi(_: Pa, value: u64) -> Option<u64> {
    Some(match value & 0xff {
        OPCODE_S2_IPA | OPCODE_S12_VMALL if value >> 32 == 7 => OPCODE_SYNC,
        _ => value,
    })
}

/// Entries of streams change in memory, and the SMMU is not told.
fn forget_cfgi(at: Pa, value: u64) -> Option<u64> {
    const OPCODE_CFGI_STE: u64 = 0x03;
    if value & 0xffff_f000 == 0 {
        Some(sync_for(OPCODE_CFGI_STE, at, value))
    } else {
        Some(value)
    }
}

/// Pages of a guest's own tables lead one page further on.
fn shift_guest_pages(_: Pa, value: u64) -> Option<u64> {
    Some(if is_guest_page(value) {
        value + 0x1000
    } else {
        value
    })
}

/// CDs do not ask for records of faults.
fn forget_stage1_records(_: Pa, value: u64) -> Option<u64> {
    const LIVE_CD: u64 = 1 << 31 | 1 << 41 | 1 << 46 | 1 << 47;
    const RECORD: u64 = 1 << 45;
    Some(if value & LIVE_CD == LIVE_CD && value >> 48 == 9 {
        value & !RECORD
    } else {
        value
    })
}

/// Pages of a guest's own tables are read-only.
fn write_protect_guest_pages(_: Pa, value: u64) -> Option<u64> {
    const READ_ONLY: u64 = 1 << 7;
    Some(if is_guest_page(value) {
        value | READ_ONLY
    } else {
        value
    })
}

/// Pages that should be read-only are not.
fn unseal_pages(_: Pa, value: u64) -> Option<u64> {
    const READABLE: u64 = 1 << 6;
    const WRITABLE: u64 = 1 << 7;
    let is_read_only = is_page(value) && value & (READABLE | WRITABLE) == READABLE;
    Some(if is_read_only {
        value | WRITABLE
    } else {
        value
    })
}

/// Invalidations of a CD become CMD_SYNCs.
fn forget_cfgi_cd(at: Pa, value: u64) -> Option<u64> {
    const OPCODE_CFGI_CD: u64 = 0x05;
    Some(sync_for(OPCODE_CFGI_CD, at, value))
}

/// Pages of two address spaces become one.
fn share_guest_pages(_: Pa, value: u64) -> Option<u64> {
    const ADDRESS: u64 = 0xffff_ffff_f000;
    const THE_ONE: u64 = 0x3000_0000;
    Some(if is_guest_page(value) {
        value & !ADDRESS | THE_ONE
    } else {
        value
    })
}

/// A command of which the low 12 bits are `opcode` names another stream than it should.
const fn misdirect(opcode: u64, at: Pa, value: u64) -> u64 {
    const STREAM: u64 = 1 << 32;
    if is_command(opcode, at, value) {
        value ^ STREAM
    } else {
        value
    }
}

/// Answers to stalled transactions are for another stream.
fn misdirect_resume(at: Pa, value: u64) -> Option<u64> {
    const OPCODE_RESUME: u64 = 0x44;
    Some(misdirect(OPCODE_RESUME, at, value))
}

/// Invalidations of what a device keeps of a PASID go to another device.
fn misdirect_atc_inv(at: Pa, value: u64) -> Option<u64> {
    const OPCODE_ATC_INV: u64 = 0x40;
    const WITH_PASID: u64 = 1 << 11;
    Some(misdirect(OPCODE_ATC_INV | WITH_PASID, at, value))
}

/// TLB invalidations go to the SMMU that is told first, and become CMD_SYNCs for the other.
fn tell_one_smmu(at: Pa, value: u64) -> Option<u64> {
    let opcode = value & 0xff;
    let is_tlbi = matches!(opcode, OPCODE_S2_IPA | OPCODE_S12_VMALL | OPCODE_NH_ALL);
    if !is_tlbi || value >> 32 != 7 {
        return Some(value);
    }
    // A queue is one page.
    let queue = at.as_u64() >> 12;
    let told = TOLD.compare_exchange(0, queue, Ordering::Relaxed, Ordering::Relaxed);
    let is_other = told.is_err_and(|first| first != queue);
    Some(if is_other { OPCODE_SYNC } else { value })
}

/// Where the queue is of the SMMU that was told first.
static TOLD: AtomicU64 = AtomicU64::new(0);

/// L1 descriptors of 256 entries are not stored.
fn swallow_l1(_: Pa, value: u64) -> Option<u64> {
    const SPAN_OF_256: u64 = 9;
    if value & 0x3f == SPAN_OF_256 && value >> 14 != 0 {
        None
    } else {
        Some(value)
    }
}

/// The event queue's slots are not given back, and its abort is not acknowledged.
fn keep_events(at: Pa, value: u64) -> Option<u64> {
    const EVENTQ_CONS: u64 = 0xac;
    const GERRORN: u64 = 0x64;
    // Beside the index there may be OVACKFLG.
    const SMALL: u64 = 0x8000_00ff;
    if matches!(register(at), EVENTQ_CONS | GERRORN) && value & !SMALL == 0 {
        None
    } else {
        Some(value)
    }
}

/// The reserved command becomes a CMD_SYNC.
fn make_legal(_: Pa, value: u64) -> Option<u64> {
    Some(if value == OPCODE_RESERVED {
        OPCODE_SYNC
    } else {
        value
    })
}

/// GBPA says bypass where it should say abort.
fn open_gate(at: Pa, value: u64) -> Option<u64> {
    const GBPA: u64 = 0x44;
    const ABORT: u64 = 1 << 20;
    const UPDATE: u64 = 1 << 31;
    let is_gate = register(at) == GBPA && value & UPDATE != 0;
    Some(if is_gate { value & !ABORT } else { value })
}

/// The fault for the check of this name.
pub(super) fn hook_for(check: &str) -> Option<Hook> {
    Some(match check {
        "unbound-stream-aborts" => bypass_unused,
        "stage2-dma" => shift_pages,
        "stage2-fault-decoded" | "nested-fault-stage2" | "pasid-out-of-range" => misplace_events,
        "stage2-unmap-blocks" | "stage2-protect-read-only" | "block-split-under-dma" => forget_tlbi,
        "nvme-identify-stage2" => write_protect_pages,
        "nested-dma" => shift_guest_pages,
        "nested-fault-stage1" => forget_stage1_records,
        "nvme-identify-nested" => write_protect_guest_pages,
        "window-is-sealed" => unseal_pages,
        "retract-blocks" => forget_cfgi_cd,
        "two-level-stream-table" => swallow_l1,
        "stream-handover-between-two-stage2s" => forget_cfgi,
        "event-overflow-survived" => keep_events,
        "illegal-command-recovered" => make_legal,
        "pasid-dma" => shift_guest_pages,
        "pasid-two-spaces-one-address" => share_guest_pages,
        "pasid-release-blocks" => forget_cfgi_cd,
        "pasid-stall-and-resume" => misdirect_resume,
        "pasid-ats" => misdirect_atc_inv,
        "two-smmus" => {
            TOLD.store(0, Ordering::Relaxed);
            tell_one_smmu
        }
        "shutdown-leaves-abort" => open_gate,
        _ => return None,
    })
}

/// Whether the check puts its fault in itself, at a later point than its beginning.
pub(super) fn waits(check: &str) -> bool {
    matches!(
        check,
        "unbound-stream-aborts"
            | "two-level-stream-table"
            | "stream-handover-between-two-stage2s"
            | "event-overflow-survived"
            | "illegal-command-recovered"
            | "pasid-release-blocks"
            | "pasid-ats"
    )
}
