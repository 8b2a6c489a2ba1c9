//! Where QEMU's SMMUv3 is known to differ, and why.

mod commands;
mod configuration;
mod translation;

/// Every difference that there must be, with QEMU 10.0.2.
pub fn exceptions() -> impl Iterator<Item = &'static Exception> + Clone {
    let rooms = [
        configuration::EXCEPTIONS,
        translation::EXCEPTIONS,
        commands::EXCEPTIONS,
    ];
    rooms.into_iter().flatten()
}

/// A difference that there must be.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The programs that show it, all with the same lines.
    pub programs: &'static [&'static str],
    /// How it is known that QEMU differs.
    pub source: Source,
    /// What QEMU does, and what the architecture asks for.
    pub why: &'static str,
    /// The lines that only the model has.
    pub model: &'static [&'static str],
    /// The lines that only QEMU has.
    pub qemu: &'static [&'static str],
}

/// How it is known that QEMU differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The item of section 1.4 of the emulator facts (`emulator.md`) that lists it.
    Listed(u8),
    /// Found by these programs; the section of IHI 0070 that QEMU departs from.
    Found(&'static str),
    /// The architecture leaves it open (the section that does), and the model chooses otherwise.
    Lawful(&'static str),
}
