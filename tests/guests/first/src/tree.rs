//! As much of a device tree as is needed: properties by name, wherever they are.

/// The tree that EL2 wrote.
#[derive(Clone, Copy)]
pub(crate) struct Tree(pub(crate) u64);

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;

impl Tree {
    fn word(self, at: u64) -> u32 {
        // SAFETY: inside the tree, which EL2 put into our memory.
        u32::from_be(unsafe { core::ptr::read_volatile((self.0 + at) as *const u32) })
    }

    fn is_text(self, at: u64, text: &str) -> bool {
        let mut bytes = text.bytes().chain([0]).zip(at..);
        // SAFETY: as above.
        bytes.all(
            |(byte, at)| unsafe { core::ptr::read_volatile((self.0 + at) as *const u8) } == byte,
        )
    }

    /// The `number`th number of 64 bits in the first property called `name`.
    pub(crate) fn number(self, name: &str, number: u64) -> Option<u64> {
        let (at, bytes) = self.find(name)?;
        (8 * (number + 1) <= u64::from(bytes)).then(|| {
            let at = at + 8 * number;
            u64::from(self.word(at)) << 32 | u64::from(self.word(at + 4))
        })
    }

    /// Where the configuration space of the first host bridge is: `reg` of the node that has a
    /// `bus-range`.
    pub(crate) fn ecam(self) -> Option<u64> {
        let (mut last_reg, mut found) = (None, None);
        self.walk(|name_at, at, bytes| {
            if self.is_text(name_at, "reg") && bytes == 16 {
                last_reg = Some(u64::from(self.word(at)) << 32 | u64::from(self.word(at + 4)));
            }
            if self.is_text(name_at, "bus-range") && found.is_none() {
                found = last_reg;
            }
        });
        found
    }

    fn find(self, name: &str) -> Option<(u64, u32)> {
        let mut found = None;
        self.walk(|name_at, at, bytes| {
            if found.is_none() && self.is_text(name_at, name) {
                found = Some((at, bytes));
            }
        });
        found
    }

    /// Calls `each` with where the name is, where the value is, and how long it is.
    fn walk(self, mut each: impl FnMut(u64, u64, u32)) {
        let (mut at, names) = (u64::from(self.word(8)), u64::from(self.word(12)));
        loop {
            let token = self.word(at);
            at += 4;
            match token {
                BEGIN_NODE => {
                    // SAFETY: as above; a name ends.
                    while unsafe { core::ptr::read_volatile((self.0 + at) as *const u8) } != 0 {
                        at += 1;
                    }
                    at = (at + 4) & !3;
                }
                END_NODE => {}
                PROPERTY => {
                    let (bytes, name) = (self.word(at), self.word(at + 4));
                    each(names + u64::from(name), at + 8, bytes);
                    at = (at + 8 + u64::from(bytes) + 3) & !3;
                }
                _ => return,
            }
        }
    }
}
