//! Numbers that are freed when their process exits, whatever becomes of CDs and files.

use std::collections::BTreeMap;

use super::{Numbers, Policy};
use crate::kit::Kit;
use crate::side::Exit;

/// The number of each process, and of each file.
#[derive(Default)]
struct Books {
    numbers: Numbers,
    of_process: BTreeMap<String, u32>,
    of_file: BTreeMap<&'static str, (String, u32)>,
}

impl Books {
    /// The number of a process, the same for all its binds.
    fn bind(&mut self, process: &str, file: &'static str) -> u32 {
        let numbers = &mut self.numbers;
        let number = *self
            .of_process
            .entry(process.to_owned())
            .or_insert_with(|| numbers.take());
        self.of_file.insert(file, (process.to_owned(), number));
        number
    }

    /// Frees the number of a process that exits.
    fn exit(&mut self, process: &str) -> Option<u32> {
        let number = self.of_process.remove(process)?;
        self.numbers.free(number);
        Some(number)
    }
}

/// At exit the number is freed. The CD is the file's to retract; where that finds no number of its
/// process any more, it gives up. A CD that is live when its number is bound gets a new ASID alone.
#[derive(Default)]
pub(super) struct FreedAtExit(Books);

impl Policy for FreedAtExit {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let number = self.0.bind(process, file);
        if kit.is_live(number) {
            kit.replace_asid(number, process);
        } else {
            kit.publish(number, process);
        }
        Ok(number)
    }

    fn exit(&mut self, _: &mut Kit, process: &str) -> Exit {
        self.0.exit(process);
        Exit::Gone
    }

    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String> {
        let Some((process, number)) = self.0.of_file.remove(file) else {
            return Err("it is not open".to_owned());
        };
        if self.0.of_process.get(&process) != Some(&number) {
            return Err("error: no PASID; CD stays".to_owned());
        }
        kit.retract(number, &process);
        Ok(())
    }
}

/// At exit the CD goes and the number is freed. A file remembers its number, and closing it retracts
/// the CD of that number.
#[derive(Default)]
pub(super) struct ClosedByNumber(Books);

impl Policy for ClosedByNumber {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let number = self.0.bind(process, file);
        if !kit.is_live(number) {
            kit.publish(number, process);
        }
        Ok(number)
    }

    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit {
        if let Some(number) = self.0.exit(process) {
            kit.retract(number, process);
        }
        Exit::Gone
    }

    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String> {
        let Some((process, number)) = self.0.of_file.remove(file) else {
            return Err("it is not open".to_owned());
        };
        kit.retract(number, &process);
        Ok(())
    }
}
