//! Random programs, on the real code and on the reference.

use portcullis::spec::ste::Ats;
use portcullis_life::operation::Op;
use portcullis_life::reference::Shape;
use portcullis_life::world::{Machine, with_world};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smmu_model::{Identity, Mode};

const GUESTS: usize = 2;
const DEVICES: usize = 3;
const SPACES: usize = 4;
const HANDLES: usize = 6;

fn shape() -> impl Strategy<Value = Shape> {
    let ats = prop_oneof![Just(Ats::Off), Just(Ats::Split), Just(Ats::Full)];
    (1..=2_usize, ats, any::<bool>()).prop_map(|(smmus, ats, has_ports)| Shape {
        smmus,
        devices: (0..DEVICES).map(|device| device % smmus).collect(),
        ats,
        guests: GUESTS,
        spaces: SPACES,
        handles: HANDLES,
        has_ports,
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Polite),
        Just(Mode::Forgetful),
        Just(Mode::Hoarding),
        any::<u64>().prop_map(|seed| Mode::Chaotic { seed }),
    ]
}

fn op(smmus: usize, has_faults: bool) -> impl Strategy<Value = Op> {
    let (guest, device) = (0..GUESTS, 0..DEVICES);
    let (space, handle, smmu) = (0..SPACES, 0..HANDLES, 0..smmus);
    let on = any::<bool>();
    let lives = prop_oneof![
        3 => guest.clone().prop_map(|guest| Op::CreateGuest { guest }),
        1 => guest.clone().prop_map(|guest| Op::DestroyGuest { guest }),
        4 => (guest.clone(), device.clone())
            .prop_map(|(guest, device)| Op::Acquire { guest, device }),
        1 => device.clone().prop_map(|device| Op::Disown { device }),
        6 => (guest.clone(), device.clone(), on)
            .prop_map(|(guest, device, stage2)| Op::Attach { guest, device, stage2 }),
        1 => (guest.clone(), device.clone())
            .prop_map(|(guest, device)| Op::Detach { guest, device }),
        6 => (guest.clone(), space.clone())
            .prop_map(|(guest, space)| Op::CreateSpace { guest, space }),
        3 => (guest.clone(), space.clone())
            .prop_map(|(guest, space)| Op::Release { guest, space }),
        1 => guest.clone().prop_map(|guest| Op::ReleaseAll { guest }),
        9 => (guest.clone(), space.clone(), device.clone(), 0..4)
            .prop_map(|(guest, space, device, by)| {
                Op::Bind { guest, space, device, whole: by == 0 }
            }),
        6 => (guest.clone(), handle)
            .prop_map(|(guest, handle)| Op::Unbind { guest, handle }),
        1 => (guest.clone(), space)
            .prop_map(|(guest, space)| Op::Invalidate { guest, space }),
        1 => guest.clone().prop_map(|guest| Op::Remap { guest }),
        1 => (guest, device.clone()).prop_map(|(guest, device)| Op::Reset { guest, device }),
        1 => device.clone().prop_map(|device| Op::Restore { device }),
        1 => Just(Op::Wait),
    ];
    let faults = prop_oneof![
        1 => smmu.clone().prop_map(|smmu| Op::Halt { smmu }),
        3 => smmu.clone().prop_map(|smmu| Op::Recover { smmu }),
        3 => (smmu, on).prop_map(|(smmu, on)| Op::Mute { smmu, on }),
        2 => (device.clone(), on).prop_map(|(device, on)| Op::Silence { device, on }),
        1 => (device, on).prop_map(|(device, on)| Op::Jam { device, on }),
    ];
    prop_oneof![
        8 => lives,
        if has_faults { 2 } else { 0 } => faults,
    ]
}

/// A world, and a program for it.
fn program(has_faults: bool) -> impl Strategy<Value = (Shape, Mode, Vec<Op>)> {
    (shape(), mode()).prop_flat_map(move |(shape, mode)| {
        let ops = prop::collection::vec(op(shape.smmus, has_faults), 1..60);
        (Just(shape), Just(mode), ops)
    })
}

fn run(shape: &Shape, mode: Mode, ops: &[Op]) -> Result<(), String> {
    let machine = Machine {
        identity: Identity::full(),
        mode,
    };
    with_world(shape, machine, |world| world.live(ops))
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("LIFE_CASES").map_or(400, |it| it.parse().expect("a number")),
        failure_persistence: None,
        max_shrink_iters: 400,
        // The same programs every time; another number, other programs.
        rng_seed: RngSeed::Fixed(
            std::env::var("LIFE_SEED").map_or(1, |it| it.parse().expect("a number")),
        ),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_library_and_the_reference_agree_after_every_step((shape, mode, ops) in program(false)) {
        prop_assert_eq!(run(&shape, mode, &ops), Ok(()));
    }

    #[test]
    fn they_agree_whatever_does_not_obey((shape, mode, ops) in program(true)) {
        prop_assert_eq!(run(&shape, mode, &ops), Ok(()));
    }
}
