//! A second bind of the same device and number.

use std::collections::BTreeMap;

use super::{Numbers, Policy};
use crate::kit::Kit;
use crate::side::Exit;

/// What the caller makes of the refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// It is told on.
    Told,
    /// It counts as success.
    Swallowed,
}

/// A number is attached to the device once, and refused as busy then.
pub(super) struct OneBind {
    busy: Busy,
    numbers: Numbers,
    of_process: BTreeMap<String, u32>,
    of_file: BTreeMap<&'static str, (String, u32)>,
}

impl OneBind {
    pub(super) fn new(busy: Busy) -> Self {
        Self {
            busy,
            numbers: Numbers::default(),
            of_process: BTreeMap::new(),
            of_file: BTreeMap::new(),
        }
    }

    fn attach(kit: &mut Kit, number: u32, process: &str) -> Result<(), String> {
        if kit.is_live(number) {
            return Err("REFUSED: busy".to_owned());
        }
        kit.publish(number, process);
        Ok(())
    }
}

impl Policy for OneBind {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let numbers = &mut self.numbers;
        let number = *self
            .of_process
            .entry(process.to_owned())
            .or_insert_with(|| numbers.take());
        match (Self::attach(kit, number, process), self.busy) {
            (Ok(()), _) | (Err(_), Busy::Swallowed) => {
                self.of_file.insert(file, (process.to_owned(), number));
                Ok(number)
            }
            (Err(why), Busy::Told) => Err(why),
        }
    }

    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit {
        if let Some(number) = self.of_process.remove(process) {
            kit.retract(number, process);
            self.numbers.free(number);
        }
        Exit::Gone
    }

    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String> {
        let (process, number) = self
            .of_file
            .remove(file)
            .ok_or_else(|| "it is not open".to_owned())?;
        kit.retract(number, &process);
        Ok(())
    }
}
