//! Mutated tables may be refused; they may not panic or hang, and what is read of them makes sense.
//!
//! Each mutant has a number, and the number gives the mutant: a failure names it, and
//! `PORTCULLIS_FUZZ_FIRST=NUMBER PORTCULLIS_FUZZ_MUTANTS=1` makes it again.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use portcullis::addr::Pa;
use portcullis::discover::{AcpiTables, Machine, Rid, StreamsOf};

use crate::builder::{self, Firmware, Memory, RSDP, range, single, sum_up};
use crate::{tables, with_nodes};

const MUTANTS: u64 = 40_000;

/// Numbers that look random and are the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    /// A number that is more likely than others to matter.
    fn word(&mut self) -> u32 {
        let edges = [
            0,
            1,
            2,
            16,
            20,
            35,
            36,
            44,
            48,
            52,
            0xffff,
            0x1_0000,
            1 << 31,
            !0,
            !15,
        ];
        match self.below(4) {
            0 => self.next() as u32,
            1 => self.below(0x400) as u32,
            2 => 1 << self.below(32),
            _ => edges[self.below(edges.len())],
        }
    }
}

/// Writes a number of 1, 2, 4 or 8 bytes somewhere, or changes one bit.
fn change(body: &mut [u8], numbers: &mut Numbers) {
    if body.is_empty() {
        return;
    }
    let at = numbers.below(body.len());
    let size_bytes = match numbers.below(5) {
        0 => {
            body[at] ^= 1 << numbers.below(8);
            return;
        }
        1 => 1,
        2 => 2,
        3 => 4,
        _ => 8,
    };
    // Numbers are aligned in these tables, as a rule.
    let at = at / 2 * 2;
    let mut value = [0; 8];
    value[..4].copy_from_slice(&numbers.word().to_le_bytes());
    if numbers.below(2) == 0 {
        value[4..].copy_from_slice(&numbers.word().to_le_bytes());
    }
    let room = body.len() - at;
    let size_bytes = size_bytes.min(room);
    body[at..at + size_bytes].copy_from_slice(&value[..size_bytes]);
}

/// Moves bytes within a table, or changes how long it is.
fn shuffle(body: &mut Vec<u8>, numbers: &mut Numbers) {
    let at = numbers.below(body.len());
    let size_bytes = numbers.below(64).min(body.len() - at);
    match numbers.below(4) {
        0 => body.truncate(at),
        1 => drop(body.drain(at..at + size_bytes)),
        2 => {
            let copy = body[at..at + size_bytes].to_vec();
            let to = numbers.below(body.len());
            body.splice(to..to, copy);
        }
        _ => body.extend((0..size_bytes).map(|_| numbers.next() as u8)),
    }
}

/// A mutant whose checksums are right, so that it is read.
fn senseless(mut firmware: Firmware, numbers: &mut Numbers) -> Memory {
    for _ in 0..=numbers.below(3) {
        let count = firmware.tables.len();
        // IORT has most to go wrong, and is the last.
        let place = if numbers.below(2) == 0 {
            count - 1
        } else {
            numbers.below(count)
        };
        let body = &mut firmware.tables[place].body;
        match numbers.below(6) {
            0 => shuffle(body, numbers),
            _ => change(body, numbers),
        }
    }
    if numbers.below(4) == 0 {
        firmware.old_memory()
    } else {
        firmware.memory()
    }
}

/// A mutant whose RSDP, root table or headers are damaged, the checksum made right or not.
fn damaged(firmware: &Firmware, numbers: &mut Numbers) -> Memory {
    let mut memory = firmware.memory();
    let place = numbers.below(memory.0.len());
    let is_rsdp = place == memory.0.len() - 1;
    let bytes = &mut memory.0[place].1;
    let front = bytes.len().min(64);
    change(&mut bytes[..front], numbers);
    if numbers.below(2) == 0 {
        let at = if is_rsdp { 32 } else { 9 };
        sum_up(bytes, at);
    }
    if numbers.below(8) == 0 {
        bytes.truncate(numbers.below(bytes.len()));
    }
    memory
}

/// What no board has all of: both layouts of RMR, ranges of a component, an older SMMU, revision 5,
/// two segments, SPCR and DBG2.
fn of_all_kinds() -> Firmware {
    let all = [range(0, 0xffff, 0, 0)];
    let kept = [(0xe640_0000, 0x10_0000), (0x27b0_0000, 0xc0_0000)];
    let mut older = builder::smmu(1, 0x909_0000, [0; 4], &all);
    older.bytes = older.bytes.byte(0, 3);
    let newest = builder::smmu(5, 0x907_0000, [0; 4], &[all[0], single(0x9000, 0)]);
    let ranges = [range(0, 2, 0x10, 1), range(2, 1, 0x20, 2), single(7, 1)];
    let mut firmware = with_nodes(&[
        builder::its_group(&[0, 1]),
        builder::smmu(4, 0x905_0000, [74; 4], &all),
        newest.change(|bytes| bytes.word(24, 0x11).word(64, 1)),
        older,
        builder::root_complex(0, &[range(0, 0x100, 0, 1), range(0x100, 0x100, 0x100, 2)]),
        builder::root_complex(1, &[single(0x77, 2)]),
        builder::component("\\_SB_.ACC0", &ranges),
        builder::rmr(3, &kept, &[range(0, 3, 0x20, 1), single(0x11, 2)]),
        builder::old_rmr(&kept, &[range(0, 0, 0x3000, 3)]),
    ]);
    let port = (0x8000, 0, builder::address(8, 1, 0x5000));
    let iort = firmware.tables.pop().expect("the last is IORT");
    firmware.tables.push(builder::dbg2(&[port]));
    firmware.tables.push(iort);
    firmware
}

fn mutant(number: u64) -> Memory {
    let mut numbers = Numbers((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let boards = [
        tables::qemu,
        tables::d06,
        tables::taishan_2280_v2,
        tables::d05,
        of_all_kinds,
    ];
    let firmware = boards[numbers.below(boards.len())]();
    match numbers.below(8) {
        0 => damaged(&firmware, &mut numbers),
        _ => senseless(firmware, &mut numbers),
    }
}

/// What must hold of every machine that was read.
fn assert_makes_sense(machine: &Machine) {
    let count = machine.smmus.len();
    for bridge in &machine.bridges {
        assert!(bridge.first_bus <= bridge.last_bus);
        let mut next = 0;
        for map in &bridge.streams {
            assert!(
                u32::from(map.rid_base) >= next,
                "maps rise and share no RID"
            );
            next = u32::from(map.rid_base) + map.count;
            assert!(map.count > 0 && next <= 1 << 16);
            assert!(map.first.smmu.as_usize() < count);
            assert!(map.first.id.as_u32().checked_add(map.count - 1).is_some());
        }
    }
    for device in &machine.devices {
        let known = machine.known_streams_of_device(device);
        assert!(known.iter().all(|stream| stream.smmu.as_usize() < count));
    }
    for kept in &machine.kept {
        assert!(kept.count > 0 && kept.at.size_bytes() > 0);
        assert!(kept.first.smmu.as_usize() < count);
    }
    for (place, smmu) in machine.smmus.iter().enumerate() {
        let mut others = machine.smmus[..place].iter();
        assert!(others.all(|other| !other.registers.overlaps(&smmu.registers)));
    }
}

/// The first look ends, and finds every SMMU that the whole reading does.
fn assert_first_look(tables: &AcpiTables<'_>, machine: &Machine, is_taken: bool) {
    let found: Vec<_> = tables.smmus().collect();
    // The smallest node has 16 bytes.
    assert!(found.len() <= (1 << 20) / 16);
    let places: Vec<_> = found
        .iter()
        .flatten()
        .map(|it| (it.registers, it.quirks))
        .collect();
    let of_machine = machine.smmus.iter();
    let of_machine: Vec<_> = of_machine.map(|it| (it.registers, it.quirks)).collect();
    assert!(!is_taken || places == of_machine && found.len() == places.len());
}

/// Reads a mutant in every way; says whether it was taken.
fn is_taken(memory: &Memory) -> bool {
    let read = |at: Pa, size_bytes: usize| memory.read(at, size_bytes);
    let Ok(tables) = AcpiTables::new(RSDP, &read) else {
        return false;
    };
    let mut machine = Box::new(Machine::new());
    let is_taken = machine.read_acpi(&tables, &[]).is_ok();
    assert_makes_sense(&machine);
    let mut survey = Box::new(Machine::new());
    let mut odd = 0;
    survey.survey_acpi(&tables, &[], &mut |_| odd += 1);
    assert_makes_sense(&survey);
    assert_eq!(odd == 0, is_taken, "a survey finds what is refused");
    assert!(!is_taken || survey == machine);
    assert_first_look(&tables, &machine, is_taken);
    let _ = tables.timers();
    for place in 0..survey.smmus.len() {
        let _ = tables.msis_of_smmu(place);
    }
    for place in 0..survey.devices.len() {
        let _ = tables.msis_of_device(place);
    }
    for bridge in &survey.bridges {
        for rid in [0, 0x7c00, 0xf800, 0xffff] {
            let rid = Rid::from_u16(rid);
            let msis = tables.msis_of(bridge.segment, rid);
            let stream = bridge.stream_of(rid);
            assert!(msis.is_ok() || stream == StreamsOf::Unprotected);
        }
    }
    is_taken
}

fn number_of(name: &str, otherwise: u64) -> u64 {
    let given = env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn what_is_mutated_makes_sense_before() {
    let memory = of_all_kinds().memory();
    assert!(is_taken(&memory));
}

#[test]
fn mutated_tables_neither_panic_nor_make_machines_without_sense() {
    let first = number_of("PORTCULLIS_FUZZ_FIRST", 0);
    let count = number_of("PORTCULLIS_FUZZ_MUTANTS", MUTANTS);
    let mut taken = 0;
    for number in first..first + count {
        let memory = mutant(number);
        match catch_unwind(AssertUnwindSafe(|| is_taken(&memory))) {
            Ok(is_taken) => taken += u64::from(is_taken),
            Err(_) => panic!("mutant {number}"),
        }
    }
    // A mutation that never hits anything, or always, would show nothing.
    if count >= 1000 {
        assert!(
            (count / 10..count * 9 / 10).contains(&taken),
            "{taken} of {count} taken"
        );
    }
}
