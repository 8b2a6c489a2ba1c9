//! What random programs have found, as short as it became.

use portcullis::spec::ste::Ats;
use portcullis_life::operation::Op;
use portcullis_life::reference::Shape;
use portcullis_life::world::{Machine, with_world};
use smmu_model::{Identity, Mode};

const DEVICE: usize = 0;

/// One guest with one device that is attached, then `ops`; in every mode.
fn holds(ats: Ats, has_ports: bool, stage2: bool, ops: &[Op]) {
    let shape = Shape {
        smmus: 1,
        devices: vec![0],
        ats,
        guests: 1,
        spaces: 2,
        handles: 3,
        has_ports,
    };
    let first = [
        Op::CreateGuest { guest: 0 },
        Op::Acquire {
            guest: 0,
            device: DEVICE,
        },
        Op::Attach {
            guest: 0,
            device: DEVICE,
            stage2,
        },
    ];
    let program = [&first, ops].concat();
    let chaotic = (0..12).map(|seed| Mode::Chaotic { seed });
    for mode in [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(chaotic)
    {
        let machine = Machine {
            identity: Identity::full(),
            mode,
        };
        let outcome = with_world(&shape, machine, |world| world.live(&program));
        assert_eq!(outcome, Ok(()), "{mode:?} {ats:?}");
    }
}

const MUTE: Op = Op::Mute { smmu: 0, on: true };
const WELL: Op = Op::Mute { smmu: 0, on: false };
const RECOVER: Op = Op::Recover { smmu: 0 };
const RESTORE: Op = Op::Restore { device: DEVICE };
const REMAP: Op = Op::Remap { guest: 0 };
const CREATE: Op = Op::CreateSpace { guest: 0, space: 0 };
const WHOLE: Op = Op::Bind {
    guest: 0,
    space: 0,
    device: DEVICE,
    whole: true,
};
const AGAIN: Op = Op::Attach {
    guest: 0,
    device: DEVICE,
    stage2: true,
};

/// Bug: the recovery of its SMMU let a device through again that is fenced and has no port.
#[test]
fn a_device_without_a_port_stays_fenced_when_its_smmu_is_recovered() {
    for ats in [Ats::Off, Ats::Split, Ats::Full] {
        holds(
            ats,
            false,
            true,
            &[MUTE, REMAP, WELL, RECOVER, RESTORE, AGAIN],
        );
    }
}

/// Bug: a device with ATS went on by what it had cached through stage 2 alone.
#[test]
fn a_device_forgets_its_guests_memory_when_a_space_is_bound_to_its_whole_stream() {
    for ats in [Ats::Split, Ats::Full] {
        holds(ats, true, true, &[CREATE, WHOLE]);
        let silence = Op::Silence {
            device: DEVICE,
            on: true,
        };
        holds(
            ats,
            true,
            true,
            &[CREATE, silence, WHOLE, RESTORE, AGAIN, WHOLE],
        );
    }
}

/// Bug: memory that was taken away, unconfirmed, was mapped over, and reached by a device that was
/// reset and attached again.
#[test]
fn what_an_smmu_may_still_translate_waits_for_its_recovery() {
    for has_ports in [true, false] {
        let ops = [
            MUTE, REMAP, REMAP, WELL, RESTORE, AGAIN, RECOVER, REMAP, AGAIN,
        ];
        holds(Ats::Off, has_ports, true, &ops);
        holds(Ats::Full, has_ports, true, &ops);
    }
}

#[test]
fn a_guest_that_ends_with_an_unconfirmed_unmap_does_not_wait_for_itself() {
    for ats in [Ats::Off, Ats::Split] {
        let ops = [
            MUTE,
            REMAP,
            WELL,
            Op::DestroyGuest { guest: 0 },
            RESTORE,
            RECOVER,
        ];
        holds(ats, true, true, &ops);
        holds(ats, false, true, &ops);
    }
}
