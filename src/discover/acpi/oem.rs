//! Who made a table.

use core::fmt;

use super::part::Part;
use crate::discover::list::Text;

/// Who made a table, and for what board; the same in all tables of a board, as a rule.
///
/// Blanks and NULs that firmware fills up with are taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Oem {
    /// The maker, such as `HISI`.
    pub id: Text<6>,
    /// The board, in the maker's words, such as `HIP08`.
    pub table_id: Text<8>,
}

impl Oem {
    /// From the header of a table (ACPI 5.2.6).
    pub(super) fn of(table: &Part<'_>) -> Self {
        Self {
            id: table.text(10),
            table_id: table.text(16),
        }
    }

    /// Which generation of HiSilicon's it is: 7 for `HIP07`, 9 for `HIP09` and `HIP09A`.
    pub(super) fn hip(&self) -> Option<u8> {
        if self.id.as_str() != "HISI" {
            return None;
        }
        let rest = self.table_id.as_str().strip_prefix("HIP")?;
        rest.get(..2)?.parse().ok()
    }
}

impl fmt::Display for Oem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.table_id)
    }
}
