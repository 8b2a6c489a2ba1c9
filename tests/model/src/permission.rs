//! Stage-1 permissions: leaf, tables above it, privilege (DDI 0487 D8.4).

use crate::bits::bit;
use crate::cd::Cd;
use crate::stage2::Need;
use crate::ste::World;

/// What a stage-1 leaf permits, after everything above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage1Permission {
    pub(crate) user_read: bool,
    pub(crate) user_write: bool,
    pub(crate) user_execute: bool,
    pub(crate) privileged_read: bool,
    pub(crate) privileged_write: bool,
    pub(crate) privileged_execute: bool,
}

impl Stage1Permission {
    /// Read, write, execute at this privilege.
    pub(crate) const fn at(self, is_privileged: bool) -> (bool, bool, bool) {
        if is_privileged {
            (
                self.privileged_read,
                self.privileged_write,
                self.privileged_execute,
            )
        } else {
            (self.user_read, self.user_write, self.user_execute)
        }
    }

    pub(crate) const fn permits(self, need: Need) -> bool {
        let (read, write, execute) = self.at(need.is_privileged);
        (!need.read || read) && (!need.write || write) && (!need.execute || execute)
    }
}

/// What table descriptors on the way take away.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hierarchy(u8);

impl Hierarchy {
    const NO_USER: u8 = 1;
    const NO_WRITE: u8 = 2;
    const NO_USER_EXECUTE: u8 = 4;
    const NO_PRIVILEGED_EXECUTE: u8 = 8;

    /// As kept in a table descriptor's copy.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The same below the table descriptor `word`; `is_flat`: HAD.
    pub(crate) fn below(self, word: u64, is_flat: bool) -> Self {
        if is_flat {
            return self;
        }
        let bits = [
            (61, Self::NO_USER),
            (62, Self::NO_WRITE),
            (60, Self::NO_USER_EXECUTE),
            (59, Self::NO_PRIVILEGED_EXECUTE),
        ];
        Self(bits.iter().fold(
            self.0,
            |all, (at, flag)| if bit(word, *at) { all | flag } else { all },
        ))
    }

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// What the leaf `word` permits below `above`.
pub(crate) fn permission(cd: &Cd, word: u64, above: Hierarchy) -> Stage1Permission {
    let read_only = bit(word, 7) || above.has(Hierarchy::NO_WRITE);
    if cd.world == World::El2 {
        // One privilege level: AP[1] and PXN mean nothing.
        let write = !read_only;
        let execute =
            !(bit(word, 54) || above.has(Hierarchy::NO_USER_EXECUTE) || (cd.wxn && write));
        return Stage1Permission {
            user_read: true,
            user_write: write,
            user_execute: execute,
            privileged_read: true,
            privileged_write: write,
            privileged_execute: execute,
        };
    }
    let user_read = bit(word, 6) && !above.has(Hierarchy::NO_USER);
    let user_write = user_read && !read_only;
    let mut user_execute = !(bit(word, 54) || above.has(Hierarchy::NO_USER_EXECUTE));
    let mut privileged_execute =
        !(bit(word, 53) || above.has(Hierarchy::NO_PRIVILEGED_EXECUTE) || user_write);
    if cd.wxn {
        user_execute &= !user_write;
        privileged_execute &= read_only;
    }
    let denied = cd.pan && (user_read || (cd.epan && user_execute));
    Stage1Permission {
        user_read,
        user_write,
        user_execute,
        privileged_read: !denied,
        privileged_write: !denied && !read_only,
        privileged_execute,
    }
}
