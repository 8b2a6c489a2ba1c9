//! Every operation that takes memory or waits, and how often.

use super::act::Act;
use super::{ACQUIRE, ATTACH, BIND, CREATE, DEVICE, GUEST, SMMU, WHOLE};
use portcullis_life::operation::Op;

/// What no device reaches afterwards, whatever was confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    Nothing,
    /// The space, from the device.
    Space,
    /// All, from the device.
    All,
    /// All, from the group that was made beside it.
    Group,
}

pub(super) struct Promise {
    pub(super) act: Act,
    /// What is done before, when guest 0 is there and owns its device.
    pub(super) before: &'static [Op],
    pub(super) taken: Taken,
    /// Allocations and CMD_SYNCs, without ATS and with.
    pub(super) counts: [(u64, u64); 2],
}

const fn promise(
    act: Act,
    before: &'static [Op],
    taken: Taken,
    counts: [(u64, u64); 2],
) -> Promise {
    Promise {
        act,
        before,
        taken,
        counts,
    }
}

const UNBIND: Op = Op::Unbind {
    guest: GUEST,
    handle: 1,
};
pub(super) const RELEASE: Op = Op::Release {
    guest: GUEST,
    space: 0,
};
pub(super) const BOUND: &[Op] = &[ATTACH, CREATE, BIND];
const BOUND_WHOLE: &[Op] = &[ATTACH, CREATE, WHOLE];

/// An SMMU does not confirm that the device lost the space, and comes back.
const FENCED: &[Op] = &[
    ATTACH,
    CREATE,
    BIND,
    Op::Mute {
        smmu: SMMU,
        on: true,
    },
    UNBIND,
    Op::Mute {
        smmu: SMMU,
        on: false,
    },
    Op::Recover { smmu: SMMU },
];

pub(super) const PROMISES: &[Promise] = &[
    promise(Act::MakeGuest, &[], Taken::Nothing, [(5, 0), (5, 0)]),
    promise(Act::AddDevice, &[], Taken::Nothing, [(0, 0), (0, 0)]),
    promise(Act::Map, BOUND, Taken::Nothing, [(2, 0), (2, 0)]),
    promise(
        Act::Do(ACQUIRE),
        &[Op::Disown { device: DEVICE }],
        Taken::Nothing,
        [(0, 0), (0, 0)],
    ),
    promise(Act::Do(ATTACH), &[], Taken::Nothing, [(4, 2), (4, 2)]),
    promise(Act::Do(CREATE), &[ATTACH], Taken::Nothing, [(3, 0), (3, 0)]),
    promise(
        Act::Do(BIND),
        &[ATTACH, CREATE],
        Taken::Nothing,
        [(0, 2), (0, 2)],
    ),
    promise(Act::Do(BIND), BOUND, Taken::Nothing, [(0, 0), (0, 0)]),
    promise(
        Act::Do(WHOLE),
        &[ATTACH, CREATE],
        Taken::Nothing,
        [(2, 1), (2, 2)],
    ),
    promise(Act::Do(UNBIND), BOUND, Taken::Space, [(0, 1), (0, 2)]),
    promise(
        Act::Do(UNBIND),
        &[ATTACH, CREATE, BIND, RELEASE],
        Taken::Space,
        [(0, 1), (0, 1)],
    ),
    promise(Act::Do(UNBIND), BOUND_WHOLE, Taken::All, [(0, 1), (0, 2)]),
    promise(Act::Do(RELEASE), BOUND, Taken::Space, [(0, 2), (0, 3)]),
    promise(Act::Do(RELEASE), BOUND_WHOLE, Taken::All, [(0, 2), (0, 3)]),
    promise(
        Act::Do(Op::ReleaseAll { guest: GUEST }),
        BOUND,
        Taken::Space,
        [(0, 3), (0, 4)],
    ),
    promise(
        Act::Do(Op::ReleaseAll { guest: GUEST }),
        BOUND_WHOLE,
        Taken::All,
        [(0, 3), (0, 5)],
    ),
    promise(
        Act::Do(Op::Invalidate {
            guest: GUEST,
            space: 0,
        }),
        BOUND,
        Taken::Nothing,
        [(0, 1), (0, 2)],
    ),
    promise(Act::Unmap, BOUND, Taken::Nothing, [(0, 2), (0, 3)]),
    promise(Act::Protect, BOUND, Taken::Nothing, [(0, 2), (0, 3)]),
    promise(
        Act::Do(Op::Detach {
            guest: GUEST,
            device: DEVICE,
        }),
        &[ATTACH],
        Taken::All,
        [(0, 1), (0, 2)],
    ),
    promise(
        Act::Tidy,
        &[
            ATTACH,
            Op::Detach {
                guest: GUEST,
                device: DEVICE,
            },
        ],
        Taken::All,
        [(0, 2), (0, 2)],
    ),
    promise(
        Act::Do(Op::Reset {
            guest: GUEST,
            device: DEVICE,
        }),
        BOUND,
        Taken::Nothing,
        [(0, 0), (0, 0)],
    ),
    promise(Act::RemoveDevice, BOUND, Taken::All, [(0, 1), (0, 1)]),
    promise(
        Act::Do(Op::DestroyGuest { guest: GUEST }),
        BOUND,
        Taken::All,
        [(0, 2), (0, 3)],
    ),
    promise(
        Act::Do(Op::Recover { smmu: SMMU }),
        BOUND,
        Taken::Nothing,
        [(0, 2), (0, 2)],
    ),
    promise(
        Act::MakeGuestWithCpus,
        &[],
        Taken::Nothing,
        [(6, 0), (6, 0)],
    ),
    promise(Act::AdoptGuest, &[], Taken::Nothing, [(5, 0), (5, 0)]),
    promise(Act::AddGroups, &[], Taken::Nothing, [(1, 0), (1, 0)]),
    promise(Act::MapFor, BOUND, Taken::Nothing, [(2, 0), (2, 0)]),
    promise(Act::InvalidateList, BOUND, Taken::Nothing, [(0, 1), (0, 2)]),
    promise(Act::TwoPhases, BOUND, Taken::Space, [(0, 2), (0, 3)]),
    promise(Act::DropRelease, BOUND, Taken::Space, [(0, 2), (0, 3)]),
    promise(Act::AttachGroup, &[], Taken::Nothing, [(6, 2), (6, 2)]),
    promise(Act::DetachGroup, &[], Taken::Group, [(0, 1), (0, 2)]),
    promise(Act::HostChange, &[], Taken::Group, [(0, 2), (0, 3)]),
    promise(Act::Restore, FENCED, Taken::Space, [(0, 1), (0, 2)]),
];
