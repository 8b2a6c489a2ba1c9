//! The first look: where the SMMUs are, before anything else is believed.

use super::cells::{Bus, Cells, Words, is_okay};
use super::tokens::{Header, MAX_DEPTH, Token, Tokens};
use crate::addr::{Extent, Pa};
use crate::discover::found::FoundSmmu;
use crate::discover::list::Text;
use crate::discover::quirks::Quirks;
use crate::discover::refusal::{Fault, Refusal};

pub(super) const COMPATIBLE: &str = "arm,smmu-v3";
pub(super) const BROKEN_PREFETCH: &str = "hisilicon,broken-prefetch-cmd";
pub(super) const BROKEN_PAGE1: &str = "cavium,cn9900-broken-page1-regspace";

/// Where the SMMUs of the tree in `blob` are, enabled or not.
///
/// Needs nothing that could be missing yet: no heap, no validated tree, no writable memory, about
/// 4 KiB of stack. Nodes are found as they come, so those in front of any damage are found. A
/// node that makes no sense by itself gives its refusal, and the search goes on; damage to the tree
/// gives one last refusal.
pub fn smmus(blob: &[u8]) -> Search<'_> {
    let (tokens, refusal) = match Header::read(blob).and_then(|header| header.tokens(blob)) {
        Ok(tokens) => (Some(tokens), None),
        Err(refusal) => (None, Some(refusal)),
    };
    Search {
        tokens,
        refusal,
        levels: [Level::ROOT; MAX_DEPTH],
        depth: 0,
    }
}

/// The search that [`smmus`] starts.
#[derive(Clone)]
pub struct Search<'t> {
    tokens: Option<Tokens<'t>>,
    refusal: Option<Refusal>,
    levels: [Level<'t>; MAX_DEPTH],
    depth: usize,
}

/// What is known of a node while the search is in it.
#[derive(Clone, Copy)]
struct Level<'t> {
    name: &'t str,
    compatible: Option<&'t [u8]>,
    is_enabled: bool,
    quirks: Quirks,
    reg: Option<&'t [u8]>,
    ranges: Option<&'t [u8]>,
    address_cells: Option<&'t [u8]>,
    size_cells: Option<&'t [u8]>,
}

impl<'t> Level<'t> {
    const ROOT: Self = Self {
        name: "/",
        compatible: None,
        is_enabled: true,
        quirks: Quirks::NONE,
        reg: None,
        ranges: None,
        address_cells: None,
        size_cells: None,
    };

    /// Notes a property. Where a node has one twice, the first holds.
    fn learn(&mut self, property: &str, value: &'t [u8]) {
        let slot = match property {
            "compatible" => &mut self.compatible,
            "reg" => &mut self.reg,
            "ranges" => &mut self.ranges,
            "#address-cells" => &mut self.address_cells,
            "#size-cells" => &mut self.size_cells,
            "status" => {
                self.is_enabled &= is_okay(value);
                return;
            }
            BROKEN_PREFETCH => {
                self.quirks = self.quirks.and(Quirks::HI161X);
                return;
            }
            BROKEN_PAGE1 => {
                self.quirks = self.quirks.and(Quirks::CN99XX);
                return;
            }
            _ => return,
        };
        *slot = slot.or(Some(value));
    }

    fn is_smmu(&self) -> bool {
        let mut texts = self.compatible.unwrap_or(&[]).split(|&byte| byte == 0);
        // What stands behind the last NUL is no text.
        texts.next_back();
        texts.any(|text| text == COMPATIBLE.as_bytes())
    }

    fn cells(&self) -> Option<Cells> {
        Cells::read(self.address_cells, self.size_cells)
    }

    /// The first entry of `reg`, address and size, as `bus` above has them.
    fn first_reg(&self, bus: Option<&Self>) -> Result<(u64, u64), Refusal> {
        let node = Text::start_of(self.name);
        let property = "reg";
        let reg = self.reg.ok_or(Refusal::Missing { node, property })?;
        let cells = bus.map_or(Ok(Cells::DEFAULT), |bus| {
            let words = bus.address_cells.unwrap_or(&[]);
            bus.cells().ok_or(Refusal::Value {
                node: Text::start_of(bus.name),
                property: "#address-cells or #size-cells",
                found: Words::new(words).word().unwrap_or(u32::MAX).into(),
            })
        })?;
        let mut words = Words::new(reg);
        let entry = words.number(cells.address).zip(words.number(cells.size));
        match entry {
            Some((_, 0)) => Err(Refusal::Value {
                node,
                property,
                found: 0,
            }),
            Some(entry) => Ok(entry),
            None => Err(Refusal::Length {
                node,
                property,
                found_bytes: reg.len(),
                needed_bytes: cells.entry_bytes(),
            }),
        }
    }
}

impl<'t> Search<'t> {
    fn innermost(&mut self) -> Option<&mut Level<'t>> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }

    fn enter(&mut self, name: &'t str) -> Result<(), Fault> {
        let is_enabled = self.innermost().is_none_or(|above| above.is_enabled);
        let level = self.levels.get_mut(self.depth).ok_or(Fault::TooDeep)?;
        *level = Level {
            name: if name.is_empty() { "/" } else { name },
            is_enabled,
            ..Level::ROOT
        };
        self.depth += 1;
        Ok(())
    }

    /// What to say of the node at `depth`, whose properties are all read, once.
    fn tell(&mut self, depth: usize) -> Option<Result<FoundSmmu, Refusal>> {
        let told = self.levels.get_mut(depth)?;
        let level = *told;
        told.compatible = None;
        level.is_smmu().then(|| {
            Ok(FoundSmmu {
                name: Text::start_of(level.name),
                registers: self.registers(depth, &level)?,
                quirks: level.quirks,
                is_enabled: level.is_enabled,
            })
        })
    }

    fn registers(&self, depth: usize, level: &Level<'t>) -> Result<Extent<Pa>, Refusal> {
        let above = self.levels.get(..depth).unwrap_or(&[]);
        let (address, size_bytes) = level.first_reg(above.last())?;
        above
            .windows(2)
            .rev()
            .try_fold(address, |at, pair| {
                let [parent, bus] = pair else { return None };
                let way = Bus {
                    children: bus.cells()?,
                    own: parent.cells()?,
                    ranges: bus.ranges,
                };
                way.pass(at, size_bytes)
            })
            .and_then(|base| Extent::<Pa>::new(Pa::new(base), size_bytes))
            .ok_or(Refusal::Unreachable {
                node: Text::start_of(level.name),
                address,
            })
    }

    /// Takes the next token, and says what it ended.
    fn step(&mut self) -> Result<Option<Result<FoundSmmu, Refusal>>, Refusal> {
        let Some(tokens) = &mut self.tokens else {
            return Ok(None);
        };
        let token = tokens.next()?;
        let fault = |fault| tokens.fault(fault);
        match token {
            Token::Begin(name) => {
                let refusal = fault(Fault::TooDeep);
                let above = self.depth;
                self.enter(name).map_err(|_| refusal)?;
                Ok(above.checked_sub(1).and_then(|above| self.tell(above)))
            }
            Token::Property(name, value) => {
                if let Some(level) = self.innermost() {
                    level.learn(name, value);
                }
                Ok(None)
            }
            Token::EndNode => {
                let depth = self.depth.checked_sub(1);
                let depth = depth.ok_or(fault(Fault::Misplaced))?;
                self.depth = depth;
                Ok(self.tell(depth))
            }
            Token::End => {
                self.tokens = None;
                Ok(None)
            }
        }
    }
}

impl Iterator for Search<'_> {
    type Item = Result<FoundSmmu, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(refusal) = self.refusal.take() {
            return Some(Err(refusal));
        }
        while self.tokens.is_some() {
            match self.step() {
                Ok(None) => {}
                Ok(told) => return told,
                Err(refusal) => {
                    self.tokens = None;
                    return Some(Err(refusal));
                }
            }
        }
        None
    }
}
