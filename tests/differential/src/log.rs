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
    /// The names of the programs.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_read_program_by_program() {
        let console = "hello\r\narena: 0x48200000\r\nprogram a\r\n  x\r\nprogram b\r\nend: ok\r\n";
        let log = Log::read(console).expect("a log");
        assert_eq!(log.arena, 0x4820_0000);
        assert_eq!(log.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(log.programs[0].lines, ["x"]);
        assert!(log.programs[1].lines.is_empty());
    }

    #[test]
    fn a_console_that_is_not_the_images_is_refused() {
        assert!(Log::read("end: no SMMUv3 in the device tree\n").is_err());
        assert!(Log::read("arena: 0xgg\n").is_err());
        assert!(Log::read("arena: 0x1000\n  x\n").is_err());
    }
}
