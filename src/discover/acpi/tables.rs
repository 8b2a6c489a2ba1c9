//! From the RSDP to the tables.

use super::oem::Oem;
use super::part::Part;
use crate::addr::{Extent, Pa};
use crate::discover::list::{List, Text};
use crate::discover::refusal::Refusal;

/// Reads so many bytes of memory at a physical address; `None` where there is nothing to read.
///
/// Whoever gives it promises what it reads, so that nothing here is unsafe.
pub type ReadMemory<'r, 't> = dyn Fn(Pa, usize) -> Option<&'t [u8]> + 'r;

/// The tables that are read; others are listed.
const READ: [&str; 7] = ["FACP", "APIC", "SPCR", "DBG2", "MCFG", "IORT", "GTDT"];
/// What each table starts with (ACPI 5.2.6).
const HEADER_BYTES: usize = 36;
/// No table that is read has a reason to be larger.
const MAX_BYTES: usize = 1 << 20;

/// The tables that the root table lists.
///
/// About 12 KiB.
#[derive(Clone)]
pub struct AcpiTables<'t> {
    listed: List<ListedTable<'t>, 64>,
}

/// One entry of the root table.
#[derive(Clone)]
pub struct ListedTable<'t> {
    /// Its four letters; empty if it cannot be read.
    pub signature: Text<4>,
    /// Where it is.
    pub at: Pa,
    /// Who made it.
    pub oem: Oem,
    /// What is wrong with it as a table; always `None` for a table that has no use here, which is
    /// not looked through.
    pub refusal: Option<Refusal>,
    whole: Option<Part<'t>>,
}

impl<'t> AcpiTables<'t> {
    /// The tables that the RSDP at `rsdp` leads to, of any version: through the XSDT, or through
    /// the RSDT where there is none (ACPI 5.2.5).
    ///
    /// A table that is damaged is listed with what is wrong with it, and is refused by whoever
    /// needs it.
    ///
    /// # Errors
    ///
    /// - [`Refusal::Unreadable`] if `read` gives nothing for the RSDP or the root table.
    /// - [`Refusal::Value`] if one of them does not start as it should.
    /// - [`Refusal::Length`] if one of them is too short.
    /// - [`Refusal::Checksum`] if one of them is damaged.
    /// - [`Refusal::Missing`] if the RSDP names no root table.
    /// - [`Refusal::TooMany`] if there are more than 64 tables.
    pub fn new(rsdp: Pa, read: &ReadMemory<'_, 't>) -> Result<Self, Refusal> {
        let root = root_table(rsdp, read)?;
        let entries = root.whole.bytes().get(HEADER_BYTES..).unwrap_or(&[]);
        if !entries.len().is_multiple_of(root.entry_bytes) {
            let size_bytes = root.whole.size_bytes() as u64;
            return Err(root.whole.value("length", size_bytes));
        }
        let mut listed = List::new();
        for entry in entries.chunks_exact(root.entry_bytes) {
            let mut address = [0; 8];
            for (to, from) in address.iter_mut().zip(entry) {
                *to = *from;
            }
            let at = Pa::new(u64::from_le_bytes(address));
            // Firmware leaves entries empty where a table was dropped.
            if at != Pa::new(0) {
                listed
                    .push(list(at, read))
                    .map_err(Refusal::too_many("ACPI tables"))?;
            }
        }
        Ok(Self { listed })
    }

    /// All tables, in firmware's order.
    pub fn listed(&self) -> &[ListedTable<'t>] {
        &self.listed
    }

    /// The table with this signature, one of [`READ`], sound as a table.
    pub(super) fn find(&self, signature: &'static str) -> Result<Option<Part<'t>>, Refusal> {
        let mut found = self
            .listed
            .iter()
            .filter(|table| table.signature.as_str() == signature);
        let Some(table) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            let (what, limit) = (signature, 1);
            return Err(Refusal::TooMany { what, limit });
        }
        table.sound()
    }
}

impl<'t> ListedTable<'t> {
    /// Its bytes, if it is of use here and sound as a table.
    pub(super) fn sound(&self) -> Result<Option<Part<'t>>, Refusal> {
        self.refusal.map_or(Ok(self.whole), Err)
    }
}

struct Root<'t> {
    whole: Part<'t>,
    entry_bytes: usize,
}

/// The XSDT or RSDT.
fn root_table<'t>(rsdp: Pa, read: &ReadMemory<'_, 't>) -> Result<Root<'t>, Refusal> {
    let first = fetch("RSDP", rsdp, 20, read)?;
    check_signature(&first, *b"RSD PTR ")?;
    check_sum(&first)?;
    let rsdt = Pa::new(first.u32(16)?.into());
    let mut xsdt = Pa::new(0);
    if first.u8(15)? >= 2 {
        let size_bytes = fetch("RSDP", rsdp, 24, read)?.size(20)?;
        if !(36..=4096).contains(&size_bytes) {
            return Err(first.value("length", size_bytes as u64));
        }
        let whole = fetch("RSDP", rsdp, size_bytes, read)?;
        check_sum(&whole)?;
        xsdt = Pa::new(whole.u64(24)?);
    }
    let (name, signature, at, entry_bytes) = match (xsdt.as_u64(), rsdt.as_u64()) {
        (0, 0) => {
            return Err(Refusal::Missing {
                node: first.label(),
                property: "XSDT address",
            });
        }
        (0, _) => ("RSDT", *b"RSDT", rsdt, 4),
        _ => ("XSDT", *b"XSDT", xsdt, 8),
    };
    let whole = fetch_table(name, at, read)?;
    check_signature(&whole, signature)?;
    Ok(Root { whole, entry_bytes })
}

fn list<'t>(at: Pa, read: &ReadMemory<'_, 't>) -> ListedTable<'t> {
    let mut table = ListedTable {
        signature: Text::new(),
        at,
        oem: Oem::default(),
        refusal: None,
        whole: None,
    };
    let header = match fetch("a table", at, HEADER_BYTES, read) {
        Ok(header) => header,
        Err(refusal) => {
            table.refusal = Some(refusal);
            return table;
        }
    };
    table.signature = header.text(0);
    table.oem = Oem::of(&header);
    let name = READ.iter().find(|name| **name == table.signature.as_str());
    if let Some(name) = name {
        match fetch_table(name, at, read) {
            Ok(whole) => table.whole = Some(whole),
            Err(refusal) => table.refusal = Some(refusal),
        }
    }
    table
}

/// The table at `at`, its checksum right.
fn fetch_table<'t>(
    name: &'static str,
    at: Pa,
    read: &ReadMemory<'_, 't>,
) -> Result<Part<'t>, Refusal> {
    let header = fetch(name, at, HEADER_BYTES, read)?;
    let size_bytes = header.size(4)?;
    if !(HEADER_BYTES..=MAX_BYTES).contains(&size_bytes) {
        return Err(header.value("length", size_bytes as u64));
    }
    let whole = fetch(name, at, size_bytes, read)?;
    check_sum(&whole)?;
    Ok(whole)
}

fn fetch<'t>(
    name: &'static str,
    at: Pa,
    size_bytes: usize,
    read: &ReadMemory<'_, 't>,
) -> Result<Part<'t>, Refusal> {
    Extent::<Pa>::new(at, size_bytes as u64)
        .and_then(|_| read(at, size_bytes)?.get(..size_bytes))
        .map(|bytes| Part::whole(name, bytes))
        .ok_or_else(|| Refusal::Unreadable {
            table: Text::start_of(name),
            at,
            size_bytes,
        })
}

fn check_signature<const N: usize>(part: &Part<'_>, expected: [u8; N]) -> Result<(), Refusal> {
    let found = part.array::<N>(0)?;
    if found == expected {
        return Ok(());
    }
    // The first four letters, in the order a person reads them.
    Err(part.value("signature", u32::from_be_bytes(part.array(0)?).into()))
}

fn check_sum(part: &Part<'_>) -> Result<(), Refusal> {
    let add = |sum: u8, byte: &u8| sum.wrapping_add(*byte);
    match part.bytes().iter().fold(0, add) {
        0 => Ok(()),
        sum => Err(Refusal::Checksum {
            table: part.label(),
            sum,
        }),
    }
}
