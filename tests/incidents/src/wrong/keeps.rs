//! A bind that holds a reference to the memory it binds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Numbers, Policy};
use crate::kit::Kit;
use crate::side::Exit;

/// A process and its binds count alike: its memory goes when nobody refers to it any more, and a file
/// that is mapped is closed when the memory goes that it is mapped in.
#[derive(Default)]
pub(super) struct HandleKeepsSpace {
    numbers: Numbers,
    of_file: BTreeMap<&'static str, (String, u32)>,
    /// Files by the memory that keeps them.
    mapped: BTreeMap<&'static str, BTreeSet<&'static str>>,
    exited: BTreeSet<String>,
}

impl HandleKeepsSpace {
    fn references(&self, process: &str) -> usize {
        let files = self.of_file.values();
        let binds = files.filter(|(of, _)| of == process).count();
        binds + usize::from(!self.exited.contains(process))
    }
}

impl Policy for HandleKeepsSpace {
    fn bind(&mut self, kit: &mut Kit, process: &str, file: &'static str) -> Result<u32, String> {
        let number = self.numbers.take();
        kit.publish(number, process);
        self.of_file.insert(file, (process.to_owned(), number));
        Ok(number)
    }

    fn exit(&mut self, kit: &mut Kit, process: &str) -> Exit {
        self.exited.insert(process.to_owned());
        // Its table of open files goes with it; what is mapped stays open as long as the memory.
        let is_mapped = |file: &str| self.mapped.values().any(|files| files.contains(file));
        let files = self.of_file.iter().filter(|(_, (of, _))| of == process);
        let closed: Vec<_> = files.map(|(file, _)| *file).collect();
        let closed: Vec<_> = closed.into_iter().filter(|file| !is_mapped(file)).collect();
        for file in closed {
            // It is open.
            let _ = self.close(kit, file);
        }
        match self.references(process) {
            0 => Exit::Gone,
            count => Exit::Kept(format!("KEPT: {count} reference, by itself")),
        }
    }

    fn close(&mut self, kit: &mut Kit, file: &str) -> Result<(), String> {
        let (process, number) = self
            .of_file
            .remove(file)
            .ok_or_else(|| "it is not open".to_owned())?;
        kit.retract(number, &process);
        self.numbers.free(number);
        Ok(())
    }

    fn map_file(&mut self, process: &'static str, file: &'static str) {
        self.mapped.entry(process).or_default().insert(file);
    }
}
