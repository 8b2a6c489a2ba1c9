//! The monitor on the modelled machine: what it shows, what it does, and that all fits 80 columns.

use std::cell::RefCell;
use std::fmt::{self, Write};

use portcullis::addr::Pa;
use portcullis::guest::monitor::{COLUMNS, GuestSeen, Monitor, PROMPT, Watched, run};
use portcullis::hw::DeviceTag;
use portcullis::smmu::Smmu;
use portcullis::space::{Iommu, SmmuId};
use portcullis_guest::{Ask, By, Device, Globals, Portcullis, SpaceId, Untagged};
use portcullis_guest_calls::{Board, Host, VA, Vcpu, on_board, tables};
use smmu_model::{Mode, Transaction};

struct Seen<'a, 'p> {
    board: &'a Board<'p>,
    may_change: bool,
    killed: RefCell<Vec<usize>>,
}

impl<'a, 'p> Seen<'a, 'p> {
    const fn new(board: &'a Board<'p>, may_change: bool) -> Self {
        Self {
            board,
            may_change,
            killed: RefCell::new(Vec::new()),
        }
    }
}

const NAMES: [&str; 2] = ["alpha", "a-name-that-is-far-too-long-for-a-column"];

impl<'p> Watched<'p, Host> for Seen<'_, 'p> {
    fn iommu(&self) -> &Iommu<'p, Host> {
        &self.board.iommu
    }

    fn smmu(&self, id: SmmuId) -> Option<(&Smmu<'p, Host>, Pa)> {
        let smmu = self.board.smmus.get(usize::from(id.as_u8()))?;
        Some((smmu, Pa::new(0xffff_ffff_0000 + u64::from(id.as_u8()))))
    }

    fn guest(&self, number: usize) -> Option<GuestSeen<'_>> {
        let guest = self.board.guests.get(number)?;
        Some(GuestSeen {
            name: NAMES[number],
            id: (!self.killed.borrow().contains(&number)).then_some(guest.id),
            cpus: 2,
            cpus_on: 1,
            memory_bytes: 64 << 20,
            devices: 2,
            outside: 12_345_678,
        })
    }

    fn machine(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "{}", "memory ".repeat(30))
    }

    fn name_device(&self, tag: DeviceTag, out: &mut dyn Write) -> fmt::Result {
        write!(out, "device {} with a long name it has not room for", tag.0)
    }

    fn may_change(&self) -> bool {
        self.may_change
    }

    fn kill(&self, number: usize) -> Result<(), &'static str> {
        if self.killed.borrow().contains(&number) {
            return Err("it has ended");
        }
        self.killed.borrow_mut().push(number);
        Ok(())
    }
}

/// What a line makes the monitor say.
fn said(seen: &Seen<'_, '_>, line: &str) -> String {
    let mut out = String::new();
    run(line, seen, &mut out).expect("a string takes all");
    for line in out.lines() {
        assert!(line.len() <= COLUMNS, "{line}");
    }
    out
}

/// A row's words, of a table whose rows are one line each.
fn row<'o>(out: &'o str, with: &str) -> Vec<&'o str> {
    assert!(
        out.lines()
            .all(|line| !line.starts_with("    ") || line.trim().starts_with('0')),
        "no row goes on in another line: {out}"
    );
    let found = out.lines().find(|line| line.contains(with));
    let found = found.unwrap_or_else(|| panic!("no `{with}` in:\n{out}"));
    found.split_whitespace().collect()
}

/// A guest with two spaces bound to its first device, and one to its second.
fn busy(board: &Board<'_>) -> Vec<SpaceId> {
    let (guest, vcpu) = (0, 0);
    let portcullis = Portcullis::new(Vcpu { board, guest, vcpu });
    for device in [Device(0), Device(1)] {
        portcullis
            .attach(device, Untagged::Abort)
            .expect("it can be");
    }
    let devices = [0, 0, 1].map(Device);
    let bound = (0..).zip(devices).map(|(n, device)| {
        let space = portcullis
            .space_create(&tables(n), Ask::Any, Globals::MayBe)
            .expect("there is room");
        portcullis.bind(space.id, device, By::Pasid).expect("bound");
        space.id
    });
    bound.collect()
}

#[test]
fn what_is_there_is_shown_in_rows_of_80_columns() {
    on_board(Mode::Polite, |board| {
        busy(board);
        let seen = Seen::new(board, false);
        let guests = said(&seen, "guests");
        assert_eq!(
            row(&guests, "alpha"),
            [
                "0", "alpha", "runs", "2", "1", "64", "MiB", "2", "3", "12345678"
            ]
        );
        assert_eq!(row(&guests, "a-name")[1], "a-name-that-is-f");
        let smmus = said(&seen, "smmus");
        assert_eq!(
            row(&smmus, "0x0000ffffffff0000"),
            [
                "0",
                "0x0000ffffffff0000",
                "16",
                "20",
                "16",
                "16",
                "48",
                "yes",
                "split",
                "up"
            ]
        );
        assert_eq!(row(&smmus, "0001")[7], "no");
        let streams = said(&seen, "streams");
        assert_eq!(streams.lines().count(), 5);
        let first = row(&streams, "PASIDs");
        assert_eq!(
            first,
            [
                "0",
                "0x00000010",
                "device?0?with?a?long?nam",
                "alpha",
                "PASIDs",
                "2"
            ]
        );
        assert_eq!(row(&streams, "0x00000030")[4], "nowhere");
        let spaces = said(&seen, "spaces alpha");
        assert_eq!(spaces.lines().count(), 4);
        assert_eq!(row(&spaces, "live")[1..], ["1", "1", "live", "1", "1"]);
        assert_eq!(said(&seen, "spaces 0"), spaces);
        let stats = said(&seen, "stats");
        assert_eq!(
            row(&stats, "alpha")[1..],
            ["3", "0", "0", "0", "3", "3", "3", "3", "2"]
        );
        let faults = said(&seen, "faults");
        assert_eq!(row(&faults, "alpha")[1..], ["0", "0", "0"]);
        assert!(said(&seen, "machine").lines().count() > 2);
        let help = said(&seen, "help");
        assert_eq!(help.lines().count(), 12);
        assert!(help.contains("not allowed"));
    });
}

#[test]
fn a_transaction_is_explained() {
    on_board(Mode::Polite, |board| {
        busy(board);
        let seen = Seen::new(board, false);
        let bound = said(&seen, &format!("explain 0:0x10 1 {VA:#x}"));
        assert!(bound.contains("stage 1 makes 0x40020000 of it"), "{bound}");
        let nobody = said(&seen, "explain 0x10 9 0");
        assert!(nobody.contains("C_BAD_CD"), "{nobody}");
        assert_eq!(said(&seen, "explain 2:1 - 0"), "there is no SMMU 2\n");
    });
}

#[test]
fn what_knocked_is_told() {
    on_board(Mode::Polite, |board| {
        let knock = Transaction::write(0x200, 0, b"portcull");
        let _ = board.host.machine().smmu(1).transact(knock);
        board.iommu.service(64);
        let faults = said(&Seen::new(board, false), "faults");
        assert!(
            faults.contains("SMMU 1: stream 0x200, which nobody has, tried 1 times"),
            "{faults}"
        );
    });
}

#[test]
fn changes_are_made_where_they_are_allowed_and_nowhere_else() {
    on_board(Mode::Hoarding, |board| {
        let spaces = busy(board);
        let looks = Seen::new(board, false);
        let SpaceId { place, generation } = spaces[0];
        let release = format!("release alpha {place}.{generation}");
        assert!(said(&looks, &release).contains("do not allow it"));
        assert!(said(&looks, "kill alpha").contains("do not allow it"));
        assert!(looks.killed.borrow().is_empty());
        assert_eq!(row(&said(&looks, "stats"), "alpha")[2], "0");

        let seen = Seen::new(board, true);
        assert!(said(&seen, &release).ends_with("of alpha: released\n"));
        assert_eq!(row(&said(&seen, "stats"), "alpha")[2], "1");
        let again = said(&seen, &release);
        assert!(again.contains("the space was released before"), "{again}");
        assert!(said(&seen, "release alpha 99.1").contains("no such space"));
        assert_eq!(said(&seen, "kill nobody"), "there is no guest `nobody`\n");
        assert_eq!(said(&seen, "kill alpha"), "guest alpha: it ends\n");
        assert_eq!(seen.killed.borrow()[..], [0]);
        assert_eq!(said(&seen, "kill alpha"), "guest alpha: it has ended\n");
        assert_eq!(row(&said(&seen, "guests"), "alpha")[2], "ended");
        assert_eq!(said(&seen, "spaces alpha"), "guest alpha has ended\n");
    });
}

#[test]
fn what_is_typed_is_shown_and_done() {
    on_board(Mode::Polite, |board| {
        let seen = Seen::new(board, false);
        let (mut monitor, mut out) = (Monitor::new(), String::new());
        monitor.greet(&mut out).expect("a string takes all");
        for byte in b"gest\x7f\x7f\x7fuests\r\nnonsense\r" {
            monitor
                .take(*byte, &seen, &mut out)
                .expect("a string takes all");
        }
        let erased = "\x08 \x08".repeat(3);
        assert!(
            out.contains(&format!("{PROMPT}gest{erased}uests\n  # guest")),
            "{out}"
        );
        assert!(out.contains("nonsense\nthere is no `nonsense`; try `help`\n"));
        assert!(out.ends_with(PROMPT));
        assert_eq!(out.matches(PROMPT).count(), 3);
    });
}
