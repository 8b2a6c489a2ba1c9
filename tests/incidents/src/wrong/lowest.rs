//! Numbers that go out again at once.

use std::collections::BTreeMap;

use super::{Numbers, Policy};
use crate::kit::Kit;
use crate::side::Exit;

/// All in its order: the CD goes and is confirmed gone, at exit; the number is free when the file is
/// closed. And then it is the lowest.
#[derive(Default)]
pub(super) struct LowestFree {
    numbers: Numbers,
    of_file: BTreeMap<&'static str, (String, u32)>,
    live: BTreeMap<String, u32>,
}

impl Policy for LowestFree {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let number = self.numbers.take();
        kit.publish(number, process);
        self.of_file.insert(file, (process.to_owned(), number));
        self.live.insert(process.to_owned(), number);
        Ok(number)
    }

    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit {
        if let Some(number) = self.live.remove(process) {
            kit.retract(number, process);
        }
        Exit::Gone
    }

    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String> {
        let (process, number) = self
            .of_file
            .remove(file)
            .ok_or_else(|| "it is not open".to_owned())?;
        // If it has not exited.
        self.exit(kit, &process);
        self.numbers.free(number);
        Ok(())
    }
}
