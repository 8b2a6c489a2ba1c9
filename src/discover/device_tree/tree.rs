//! A device tree that has been looked through from end to end.

use fdt::Fdt;

use super::node::Node;
use super::tokens::{Header, MAX_DEPTH, Token, Tokens, take_nops_out};
use crate::discover::refusal::{Fault, Refusal};

/// A device tree that has been looked through from end to end.
///
/// # Why a validator, and why its own
///
/// The crate `fdt` reads the nodes, but panics on 4 of 10 damaged trees, recurses as deep as nodes
/// are nested, and does not see NOPs everywhere: on a legal tree with a NOP between two properties
/// it ends early, and an SMMU behind it would be missed. So before it sees a tree, [`DeviceTree::new`]
/// has followed every token to the end, with bounds on depth and names, and has taken NOPs out. What
/// then remains of `fdt` is `children()` and `properties()`; its conveniences (`reg()`, `chosen()`
/// and so on) still panic on sound trees with odd contents, and are not used.
///
/// The validator of `dtoolkit` would not do: it refuses names above 31 bytes, which bindings in
/// use have, and it leaves depth and NOPs as they are. The tests compare the two.
pub struct DeviceTree<'t> {
    fdt: Fdt<'t>,
    blob: &'t [u8],
    header: Header,
}

impl<'t> DeviceTree<'t> {
    /// The tree in `blob`, which may go on behind it.
    ///
    /// NOPs are taken out of it in place; nothing else is written, and on a refusal nothing is.
    ///
    /// # Errors
    ///
    /// Any of [`Refusal::NotATree`], [`Refusal::Short`], [`Refusal::Large`], [`Refusal::Version`],
    /// [`Refusal::Block`] and [`Refusal::Structure`] if it is damaged.
    pub fn new(blob: &'t mut [u8]) -> Result<Self, Refusal> {
        let header = Header::read(blob)?;
        for reservation in header.reservations(blob)? {
            reservation?;
        }
        validate(header.tokens(blob)?)?;
        let damaged = Refusal::Structure {
            fault: Fault::Ends,
            offset: 0,
        };
        take_nops_out(blob, &header).ok_or(damaged)?;
        let blob: &'t [u8] = blob;
        let header = Header::read(blob)?;
        let fdt = Fdt::new(header.tree(blob)?).map_err(|_| damaged)?;
        Ok(Self { fdt, blob, header })
    }

    /// The root node.
    pub(super) fn root(&self) -> Option<Node<'_, '_>> {
        self.fdt.find_node("/").map(Node::root)
    }

    /// The memory reservations, address and size.
    pub(super) fn reservations(
        &self,
    ) -> Result<impl Iterator<Item = Result<(u64, u64), Refusal>> + use<'t>, Refusal> {
        self.header.reservations(self.blob)
    }
}

/// Follows every token to the end: one root, nested no deeper than [`MAX_DEPTH`], properties
/// before children, each name a name.
fn validate(mut tokens: Tokens<'_>) -> Result<(), Refusal> {
    let mut depth = 0;
    let mut may_have_property = false;
    let mut has_root = false;
    loop {
        match tokens.next()? {
            Token::Begin(name) => {
                if name.is_empty() != (depth == 0) {
                    return Err(tokens.fault(Fault::Name));
                }
                if depth == 0 && has_root {
                    return Err(tokens.fault(Fault::Misplaced));
                }
                if depth == MAX_DEPTH {
                    return Err(tokens.fault(Fault::TooDeep));
                }
                depth += 1;
                has_root = true;
                may_have_property = true;
            }
            Token::Property(..) if may_have_property => {}
            Token::EndNode if depth > 0 => {
                depth -= 1;
                may_have_property = false;
            }
            Token::End if depth == 0 && has_root => return Ok(()),
            _ => return Err(tokens.fault(Fault::Misplaced)),
        }
    }
}
