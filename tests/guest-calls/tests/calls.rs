//! Each call by the client, against the hostile model: what it does, and what it says when it does
//! not.

use portcullis_guest::{
    Answer, Ask, By, Code, Conduit, Counter, Device, Error, FaultKind, Globals, Place, Portcullis,
    Range, SpaceId, TableRegisters, Untagged,
};
use portcullis_guest_calls::{Board, DATA, IPA, LIST, RAM_BYTES, VA, Vcpu, on_board, tables};
use smmu_model::Mode;
use smmu_model::device::{End, frame};

const MODES: [Mode; 3] = [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 7 }];
/// By PASID, with ATS and stalls.
const FIRST: Device = Device(0);
/// By PASID of the first guest, without of the second; nothing stalls.
const SECOND: Device = Device(1);

fn cpu<'a, 'p>(board: &'a Board<'p>, guest: usize) -> Portcullis<Vcpu<'a, 'p>> {
    let vcpu = 0;
    Portcullis::new(Vcpu { board, guest, vcpu })
}

/// A device's write of 8 bytes: how it ended.
fn write(board: &Board<'_>, guest: usize, device: Device, pasid: Option<u32>, at: u64) -> u32 {
    let device = &board.guests[guest].models[device.0 as usize];
    device.write32(frame::PASID, pasid.map_or(0, |pasid| pasid | 1 << 31));
    device.write64(frame::IOVA, at);
    device.write32(frame::LENGTH, 8);
    device.write32(frame::FLAGS, frame::flags::WRITE);
    device.write64(frame::PATTERN, 0x6c6c_7563_7472_6f70);
    device.write32(frame::COMMAND, frame::command::START);
    device.read32(frame::LAST_END)
}

const DONE: u32 = End::Done as u32;
const ABORTED: u32 = End::Aborted as u32;
const STALLED: u32 = End::Stalled as u32;

fn code(outcome: Result<impl Sized, Error>) -> Option<Code> {
    outcome.err().and_then(|error| error.code())
}

#[test]
fn a_guest_finds_out_what_there_is() {
    on_board(Mode::Polite, |board| {
        let portcullis = cpu(board, 0);
        assert!(portcullis.is_there());
        let features = portcullis.features().expect("it is there");
        assert_eq!(features.version, (1, 0));
        assert_eq!(features.calls, (1 << 17) - 1);
        assert_eq!((features.devices, features.cpus), (2, 2));
        let quotas = portcullis.quotas().expect("it is there");
        assert_eq!((quotas.spaces, quotas.bindings), (24, 32));
        assert_eq!((quotas.handles, quotas.stalls), (40, 4));
        assert_eq!(quotas.pasid_bits, 8);
        let bounds = portcullis.bounds().expect("it is there");
        assert_eq!(
            (bounds.stall_deadline_us, bounds.quarantine_us),
            (4_000, 200)
        );
        assert_eq!(bounds.wait_us, 10_000_000);

        let first = portcullis.device_info(FIRST).expect("it is there");
        assert_eq!(first.place, Place::Mmio(0xa00_0000));
        assert_eq!(
            (first.pasid_bits, first.can_stall, first.has_ats),
            (16, true, true)
        );
        assert!(!first.is_attached && !first.is_fenced && !first.takes_pasids);
        let second = portcullis.device_info(SECOND).expect("it is there");
        let place = Place::Pci {
            segment: 0,
            bus: 1,
            device: 2,
            function: 3,
        };
        assert_eq!(second.place, place);
        assert!(!second.can_stall && !second.has_ats);
        assert_eq!(
            code(portcullis.device_info(Device(2))),
            Some(Code::NoSuchDevice)
        );

        portcullis
            .attach(FIRST, Untagged::Abort)
            .expect("it can be");
        let first = portcullis.device_info(FIRST).expect("it is there");
        assert!(first.is_attached && first.takes_pasids);
        portcullis.detach(FIRST).expect("nothing is bound");
    });
}

#[test]
fn a_space_lives_and_falls_by_calls_alone() {
    for mode in MODES {
        on_board(mode, |board| {
            let portcullis = cpu(board, 0);
            portcullis
                .attach(FIRST, Untagged::Abort)
                .expect("it can be");
            let space = portcullis
                .space_create(&tables(3), Ask::Any, Globals::MayBe)
                .expect("there is room");
            let pasid = Some(space.pasid.number);
            let handle = portcullis.bind(space.id, FIRST, By::Pasid).expect("bound");
            let again = portcullis.bind(space.id, FIRST, By::Pasid).expect("bound");
            assert_ne!(handle, again);
            assert_eq!(portcullis.stats(Counter::Handles), Ok(2));
            assert_eq!(portcullis.stats(Counter::Bindings), Ok(1));
            assert_eq!(write(board, 0, FIRST, pasid, VA), DONE);
            let landings = board.host.machine().record().take_landings();
            let base = board.guests[0].ram[0].pa.as_u64();
            assert_eq!(landings[0].pa, base + (DATA - IPA) + 0x3000);

            portcullis.release(space.id).expect("the gate falls");
            assert_eq!(write(board, 0, FIRST, pasid, VA), ABORTED);
            assert_eq!(
                code(portcullis.release(space.id)),
                Some(Code::AlreadyReleased)
            );
            let bound = portcullis.bind(space.id, FIRST, By::Pasid);
            assert_eq!(code(bound), Some(Code::Released));
            assert_eq!(portcullis.stats(Counter::Parked), Ok(1));
            portcullis.unbind(handle).expect("it is dropped");
            portcullis.unbind(again).expect("it is dropped");
            assert_eq!(code(portcullis.unbind(again)), Some(Code::NoSuchHandle));
            assert_eq!(code(portcullis.release(space.id)), Some(Code::NoSuchSpace));
            assert_eq!(portcullis.stats(Counter::Draining), Ok(1));
            board.pass(1_000);
            board.iommu.service(64);
            assert_eq!(portcullis.stats(Counter::Spaces), Ok(0));
            portcullis.detach(FIRST).expect("nothing is bound");
            assert_eq!(portcullis.stats(Counter::Devices), Ok(0));
        });
    }
}

#[test]
fn a_stalled_transaction_is_told_and_answered() {
    for answer in [Answer::Retry, Answer::Abort] {
        on_board(Mode::Hoarding, |board| {
            let portcullis = cpu(board, 0);
            portcullis
                .attach(FIRST, Untagged::Abort)
                .expect("it can be");
            let space = portcullis
                .space_create(&tables(0), Ask::Exactly(9), Globals::None)
                .expect("there is room");
            portcullis.bind(space.id, FIRST, By::Pasid).expect("bound");
            let at = VA + 0x1008;
            assert_eq!(write(board, 0, FIRST, Some(9), at), STALLED);
            board.iommu.service(64);
            let fault = portcullis
                .fault_next()
                .expect("it runs")
                .expect("there is one");
            assert_eq!(fault.kind, FaultKind::Translation);
            assert_eq!(fault.device, Some(FIRST));
            assert_eq!(fault.pasid, Some(space.pasid));
            assert_eq!(fault.address, Some(at));
            assert_eq!(fault.ipa, None);
            assert!(fault.access.is_some_and(|access| access.is_write));
            assert_eq!(portcullis.fault_next(), Ok(None));
            assert_eq!(portcullis.stats(Counter::Stalls), Ok(1));
            let id = fault.id.expect("it waits");
            assert_eq!(
                code(cpu(board, 1).fault_answer(id, answer)),
                Some(Code::ForeignFault)
            );
            portcullis.fault_answer(id, answer).expect("it waits");
            let again = portcullis.fault_answer(id, answer);
            assert_eq!(code(again), Some(Code::NoSuchFault));
            board.pass(10);
            board.iommu.service(64);
            // What was tried again found nothing again.
            let stalls = u64::from(answer == Answer::Retry);
            assert_eq!(portcullis.stats(Counter::Stalls), Ok(stalls));
            portcullis.release(space.id).expect("the gate falls");
            assert_eq!(portcullis.stats(Counter::Stalls), Ok(0));
        });
    }
}

#[test]
fn a_whole_stream_is_bound_and_aborts_after_its_last_handle() {
    on_board(Mode::Hoarding, |board| {
        let portcullis = cpu(board, 1);
        portcullis
            .attach(SECOND, Untagged::Stage2)
            .expect("it can be");
        assert_eq!(write(board, 1, SECOND, None, DATA), DONE);
        let space = portcullis
            .space_create(&tables(2), Ask::AtMostBits(4), Globals::MayBe)
            .expect("there is room");
        assert!(space.pasid.number < 16);
        let by_pasid = portcullis.bind(space.id, SECOND, By::Pasid);
        assert_eq!(code(by_pasid), Some(Code::NoPasids));
        let handle = portcullis
            .bind(space.id, SECOND, By::WholeStream)
            .expect("it can be");
        assert_eq!(write(board, 1, SECOND, None, VA), DONE);
        assert_eq!(write(board, 1, SECOND, None, DATA), ABORTED);
        assert_eq!(code(portcullis.detach(SECOND)), Some(Code::Bound));
        portcullis.unbind(handle).expect("it is dropped");
        assert_eq!(write(board, 1, SECOND, None, VA), ABORTED);
        assert_eq!(write(board, 1, SECOND, None, DATA), ABORTED);
        assert_eq!(code(portcullis.detach(SECOND)), Some(Code::NotAttached));
        portcullis.attach(SECOND, Untagged::Stage2).expect("again");
        assert_eq!(write(board, 1, SECOND, None, DATA), DONE);
        portcullis.device_reset(SECOND).expect("it is reset");
    });
}

#[test]
fn what_is_anothers_is_refused_by_name() {
    on_board(Mode::Polite, |board| {
        let (own, other) = (cpu(board, 0), cpu(board, 1));
        own.attach(FIRST, Untagged::Abort).expect("it can be");
        other.attach(FIRST, Untagged::Abort).expect("its own");
        let space = own
            .space_create(&tables(0), Ask::Any, Globals::MayBe)
            .expect("there is room");
        let handle = own.bind(space.id, FIRST, By::Pasid).expect("bound");
        let range = Range {
            address: VA,
            bytes: 1,
        };
        let theirs = [
            code(other.bind(space.id, FIRST, By::Pasid)),
            code(other.release(space.id)),
            code(other.invalidate(space.id, range)),
            code(other.invalidate_list(space.id, LIST, 2)),
        ];
        assert_eq!(theirs, [Some(Code::ForeignSpace); 4]);
        assert_eq!(code(other.unbind(handle)), Some(Code::ForeignHandle));
        assert_eq!(own.stats(Counter::Handles), Ok(1));
        let pasid = Some(space.pasid.number);
        assert_eq!(write(board, 1, FIRST, pasid, VA), ABORTED);
        assert_eq!(write(board, 0, FIRST, pasid, VA), DONE);
    });
}

#[test]
fn what_has_no_meaning_is_refused_by_its_register() {
    on_board(Mode::Polite, |board| {
        let portcullis = cpu(board, 0);
        portcullis
            .attach(FIRST, Untagged::Abort)
            .expect("it can be");
        let space = portcullis
            .space_create(&tables(0), Ask::Any, Globals::MayBe)
            .expect("there is room");
        let SpaceId { place, generation } = space.id;
        let call = |n: u64, arguments: &[u64]| {
            let mut registers = [0xeeee; 18];
            registers[0] = 0xC600_0000 + n;
            registers[1..=arguments.len()].copy_from_slice(arguments);
            let vcpu = 0;
            Vcpu {
                board,
                guest: 0,
                vcpu,
            }
            .call(&mut registers);
            (registers[0].cast_signed(), registers[1])
        };
        let bad = |register| (Code::BadArgument as i64, register);
        let TableRegisters {
            ttbr0, tcr, mair, ..
        } = tables(1);
        assert_eq!(call(0, &[3]), bad(1));
        assert_eq!(call(2, &[0, 2]), bad(2));
        assert_eq!(call(5, &[ttbr0 + 8, 0, tcr, mair, 0, 0, 0]), bad(1));
        assert_eq!(call(5, &[ttbr0, 0, tcr, mair, 3, 0, 0]), bad(5));
        assert_eq!(call(5, &[ttbr0, 0, tcr, mair, 0, 1, 0]), bad(6));
        assert_eq!(call(5, &[ttbr0, 0, tcr, mair, 0, 0, 2]), bad(7));
        let hardware_update = (Code::BadTcr as i64, 1 << 39);
        assert_eq!(
            call(5, &[ttbr0, 0, tcr | 1 << 39, mair, 0, 0, 0]),
            hardware_update
        );
        assert_eq!(call(6, &[place, generation, 0, 2]), bad(4));
        assert_eq!(call(8, &[place, generation, VA, 0]), bad(4));
        assert_eq!(call(8, &[place, generation, VA, u64::MAX]), bad(4));
        assert_eq!(call(11, &[place, generation, 2]), bad(3));
        assert_eq!(call(14, &[0]), bad(1));
        assert_eq!(call(14, &[129]), bad(1));
        assert_eq!(call(15, &[12]), bad(1));
        assert_eq!(call(16, &[place, generation, LIST + 4, 1]), bad(3));
        assert_eq!(call(16, &[place, generation, LIST, 65]), bad(4));
        assert_eq!(call(16, &[place, generation, LIST, 0]), bad(4));
        // An empty range among others: the page behind the list is full of zeros.
        assert_eq!(call(16, &[place, generation, LIST + 16, 64]), bad(3));
        let end = IPA + RAM_BYTES;
        let outside = (Code::NotItsMemory as i64, end);
        assert_eq!(call(16, &[place, generation, end - 16, 2]), outside);
        assert_eq!(portcullis.stats(Counter::Spaces), Ok(1));
    });
}

#[test]
fn a_list_is_read_from_the_guests_memory() {
    on_board(Mode::Hoarding, |board| {
        let portcullis = cpu(board, 0);
        portcullis
            .attach(SECOND, Untagged::Abort)
            .expect("it can be");
        let space = portcullis
            .space_create(&tables(5), Ask::Any, Globals::MayBe)
            .expect("there is room");
        portcullis.bind(space.id, SECOND, By::Pasid).expect("bound");
        let syncs = || board.host.machine().smmu(1).syncs();
        for count in [1, 64] {
            let before = syncs();
            portcullis
                .invalidate_list(space.id, LIST, count)
                .expect("it is confirmed");
            assert_eq!(syncs() - before, 1, "{count} ranges");
        }
    });
}

#[test]
fn text_goes_both_ways_in_registers() {
    on_board(Mode::Polite, |board| {
        let portcullis = cpu(board, 1);
        let line: Vec<u8> = (0..300_u32).map(|n| b'a' + (n % 26) as u8).collect();
        portcullis.console_write(&line).expect("it is written");
        let written = board.console();
        assert!(
            written
                .iter()
                .all(|(guest, vcpu, _)| (*guest, *vcpu) == (1, 0))
        );
        let lengths: Vec<_> = written.iter().map(|(_, _, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [128, 128, 44]);
        let bytes: Vec<u8> = written.into_iter().flat_map(|(.., bytes)| bytes).collect();
        assert_eq!(bytes, line);

        let note = "CPU 0 read 0x1000, which it has not\n".repeat(5);
        board.note(1, &note);
        let mut read = Vec::new();
        loop {
            let text = portcullis.log_read().expect("it runs");
            if text.as_bytes().is_empty() {
                break;
            }
            read.extend_from_slice(text.as_bytes());
        }
        assert_eq!(read, note.as_bytes());
        let other = cpu(board, 0).log_read().expect("it runs");
        assert!(other.as_bytes().is_empty());
    });
}

#[test]
fn a_guest_that_starts_over_has_nothing_but_its_devices() {
    on_board(Mode::Hoarding, |board| {
        let portcullis = cpu(board, 0);
        portcullis
            .attach(FIRST, Untagged::Abort)
            .expect("it can be");
        portcullis
            .attach(SECOND, Untagged::Abort)
            .expect("it can be");
        let spaces: Vec<_> = (0..8)
            .map(|n| {
                let space = portcullis
                    .space_create(&tables(n), Ask::Any, Globals::MayBe)
                    .expect("there is room");
                let device = Device((n % 2) as u32);
                portcullis.bind(space.id, device, By::Pasid).expect("bound");
                (space, device)
            })
            .collect();
        portcullis.release_all().expect("it is confirmed");
        for (space, device) in spaces {
            assert_eq!(
                write(board, 0, device, Some(space.pasid.number), VA),
                ABORTED
            );
        }
        assert_eq!(portcullis.stats(Counter::Handles), Ok(0));
        assert_eq!(portcullis.stats(Counter::Bindings), Ok(0));
        assert_eq!(portcullis.stats(Counter::Devices), Ok(2));
    });
}
