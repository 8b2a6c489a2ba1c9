//! What was seen, program by program.

/// The observations of one program, a line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramLog {
    /// The program.
    pub name: String,
    /// What was seen, in order.
    pub lines: Vec<String>,
}

/// What an image printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Where its arena was.
    pub arena: u64,
    /// The programs, in the order they were run.
    pub programs: Vec<ProgramLog>,
}

impl Log {
    /// Reads the console of the image; lines that are not its own are passed over.
    ///
    /// # Errors
    ///
    /// A sentence, if the console does not say where the arena was, or an observation belongs to
    /// no program.
    pub fn read(console: &str) -> Result<Self, String> {
        let mut arena = None;
        let mut programs: Vec<ProgramLog> = Vec::new();
        for line in console.lines().map(str::trim_end) {
            if let Some(address) = line.strip_prefix("arena: 0x") {
                let address = u64::from_str_radix(address, 16);
                arena = Some(address.map_err(|error| format!("`{line}`: {error}"))?);
            } else if let Some(name) = line.strip_prefix("program ") {
                programs.push(ProgramLog {
                    name: name.to_owned(),
                    lines: Vec::new(),
                });
            } else if let Some(seen) = line.strip_prefix("  ") {
                let program = programs.last_mut();
                let program = program.ok_or(format!("`{line}` belongs to no program"))?;
                program.lines.push(seen.to_owned());
            }
        }
        let arena = arena.ok_or("the image does not say where its arena was")?;
        Ok(Self { arena, programs })
    }
}
