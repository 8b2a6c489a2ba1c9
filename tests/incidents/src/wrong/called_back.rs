//! Holders that are called back when what they hold is destroyed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Numbers, Policy};
use crate::kit::Kit;
use crate::side::Exit;

/// How often whoever waits asks again before the story says that it is for ever.
const TURNS: u32 = 1000;

/// At exit each holder is asked in turn to let go, and the CD goes when all have.
#[derive(Default)]
pub(super) struct HoldersCalledBack {
    numbers: Numbers,
    of_process: BTreeMap<String, u32>,
    of_file: BTreeMap<&'static str, String>,
    silent: BTreeSet<&'static str>,
}

impl HoldersCalledBack {
    /// Asks the holder of a file to let go; whether it has.
    fn call_back(&mut self, file: &'static str) -> bool {
        if !self.silent.contains(file) {
            self.of_file.remove(file);
        }
        !self.of_file.contains_key(file)
    }
}

impl Policy for HoldersCalledBack {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let numbers = &mut self.numbers;
        let number = *self
            .of_process
            .entry(process.to_owned())
            .or_insert_with(|| numbers.take());
        if !kit.is_live(number) {
            kit.publish(number, process);
        }
        self.of_file.insert(file, process.to_owned());
        Ok(number)
    }

    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit {
        let of_it = self.of_file.iter().filter(|(_, of)| *of == process);
        let files: Vec<_> = of_it.map(|(file, _)| *file).collect();
        for file in files {
            if !(0..TURNS).any(|_| self.call_back(file)) {
                return Exit::Kept(format!("WAITS for {file} for ever"));
            }
        }
        if let Some(number) = self.of_process.remove(process) {
            kit.retract(number, process);
            self.numbers.free(number);
        }
        Exit::Gone
    }

    fn close(&mut self, _: &mut Kit, file: &str) -> Result<(), String> {
        let found = self.of_file.remove(file);
        found.map(|_| ()).ok_or_else(|| "it is not open".to_owned())
    }

    fn fall_silent(&mut self, file: &'static str) {
        self.silent.insert(file);
    }
}
