//! The flattened form, token by token (Devicetree Specification, chapter 5).

use crate::discover::refusal::{Block, Fault, Refusal};

/// How deep nodes may be nested; the deepest tree known has 9 levels.
pub(super) const MAX_DEPTH: usize = 32;
/// How long a name may be. The specification says 31, but bindings in use have longer ones:
/// `cavium,cn9900-broken-page1-regspace` has 35.
const MAX_NAME_BYTES: usize = 255;
/// The arm64 boot protocol allows no larger tree.
const MAX_TREE_BYTES: usize = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const HEADER_BYTES: usize = 40;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The big-endian word at `at`, if it is there.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// The header's fields that we use (§5.2).
#[derive(Clone, Copy)]
pub(super) struct Header {
    total_bytes: usize,
    structure_at: u32,
    structure_bytes: u32,
    strings_at: u32,
    strings_bytes: u32,
    reservations_at: u32,
}

/// How many bytes the tree has that starts with these eight.
///
/// For whoever has nothing but an address: nothing else of the tree is looked at.
///
/// # Errors
///
/// [`Refusal::NotATree`] if none starts with them; [`Refusal::Short`] if it claims to be smaller
/// than its own header; [`Refusal::Large`] above 2 MiB.
pub fn tree_bytes(start: [u8; 8]) -> Result<usize, Refusal> {
    let [a, b, c, d, size @ ..] = start;
    let magic = u32::from_be_bytes([a, b, c, d]);
    if magic != MAGIC {
        return Err(Refusal::NotATree { magic });
    }
    let size_bytes = u32::from_be_bytes(size) as usize;
    if size_bytes < HEADER_BYTES {
        return Err(Refusal::Short {
            size_bytes,
            needed_bytes: HEADER_BYTES,
        });
    }
    if size_bytes > MAX_TREE_BYTES {
        return Err(Refusal::Large { size_bytes });
    }
    Ok(size_bytes)
}

impl Header {
    /// Where the header keeps the size of the structure block.
    const STRUCTURE_BYTES_AT: usize = 36;

    /// Reads the header of `blob`, which may go on behind the tree.
    pub(super) fn read(blob: &[u8]) -> Result<Self, Refusal> {
        let short = |needed_bytes| Refusal::Short {
            size_bytes: blob.len(),
            needed_bytes,
        };
        let start = blob.first_chunk().ok_or(short(HEADER_BYTES))?;
        let total_bytes = tree_bytes(*start)?;
        if blob.len() < total_bytes {
            return Err(short(total_bytes));
        }
        let field = |at| word(blob, at).ok_or(short(HEADER_BYTES));
        let (version, compatible) = (field(20)?, field(24)?);
        if !(compatible..=version).contains(&VERSION) {
            return Err(Refusal::Version {
                version,
                compatible,
            });
        }
        Ok(Self {
            total_bytes,
            structure_at: field(8)?,
            structure_bytes: field(Self::STRUCTURE_BYTES_AT)?,
            strings_at: field(12)?,
            strings_bytes: field(32)?,
            reservations_at: field(16)?,
        })
    }

    pub(super) fn tree<'t>(&self, blob: &'t [u8]) -> Result<&'t [u8], Refusal> {
        blob.get(..self.total_bytes).ok_or(Refusal::Short {
            size_bytes: blob.len(),
            needed_bytes: self.total_bytes,
        })
    }

    fn block<'t>(
        &self,
        blob: &'t [u8],
        block: Block,
        (offset, size_bytes): (u32, u32),
        alignment: usize,
    ) -> Result<&'t [u8], Refusal> {
        let at = offset as usize;
        self.tree(blob)?
            .get(at..at.saturating_add(size_bytes as usize))
            .filter(|_| at >= HEADER_BYTES && at.is_multiple_of(alignment))
            .ok_or(Refusal::Block {
                block,
                offset,
                size_bytes,
            })
    }

    /// The tokens of `blob`, which this is the header of.
    pub(super) fn tokens<'t>(&self, blob: &'t [u8]) -> Result<Tokens<'t>, Refusal> {
        let structure = (self.structure_at, self.structure_bytes);
        let strings = (self.strings_at, self.strings_bytes);
        // Taking NOPs out of the one must not change the other.
        let ends_before = |(at, bytes): (u32, u32), other: (u32, u32)| {
            at.checked_add(bytes).is_some_and(|end| end <= other.0)
        };
        if !ends_before(structure, strings) && !ends_before(strings, structure) {
            return Err(Refusal::Block {
                block: Block::Strings,
                offset: self.strings_at,
                size_bytes: self.strings_bytes,
            });
        }
        Ok(Tokens {
            structure: self.block(blob, Block::Structure, structure, 4)?,
            strings: self.block(blob, Block::Strings, strings, 1)?,
            at: 0,
        })
    }

    /// The memory reservations of `blob`, address and size, without the last, which is empty.
    pub(super) fn reservations<'t>(
        &self,
        blob: &'t [u8],
    ) -> Result<impl Iterator<Item = Result<(u64, u64), Refusal>> + use<'t>, Refusal> {
        let offset = self.reservations_at;
        let unterminated = Refusal::Block {
            block: Block::Reservations,
            offset,
            size_bytes: 0,
        };
        let size_bytes = (self.total_bytes as u32).saturating_sub(offset);
        let mut rest = self.block(blob, Block::Reservations, (offset, size_bytes), 8)?;
        Ok(core::iter::from_fn(move || {
            let Some((entry, behind)) = rest.split_at_checked(16) else {
                // Said once: an empty rest would be refused for ever.
                let is_last = core::mem::replace(&mut rest, &[0; 16]).len() < 16;
                return is_last.then_some(Err(unterminated));
            };
            let number = |at| {
                entry
                    .get(at..)?
                    .first_chunk()
                    .map(|b| u64::from_be_bytes(*b))
            };
            let (address, size) = (number(0)?, number(8)?);
            if (address, size) == (0, 0) {
                return None;
            }
            rest = behind;
            Some(Ok((address, size)))
        }))
    }
}

/// One token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'t> {
    /// A node starts.
    Begin(&'t str),
    /// A property of the innermost node.
    Property(&'t str, &'t [u8]),
    /// The innermost node ends.
    EndNode,
    /// The tree ends.
    End,
}

/// The structure block, read token by token; NOPs are passed over.
#[derive(Clone)]
pub(super) struct Tokens<'t> {
    structure: &'t [u8],
    strings: &'t [u8],
    at: usize,
}

impl<'t> Tokens<'t> {
    /// The next token. Each call goes on, so a loop over it ends at the end of the block.
    pub(super) fn next(&mut self) -> Result<Token<'t>, Refusal> {
        let mut token = self.word()?;
        while token == NOP {
            token = self.word()?;
        }
        match token {
            BEGIN_NODE => self.node_name().map(Token::Begin),
            PROPERTY => {
                let size_bytes = self.word()? as usize;
                let name = self.property_name()?;
                Ok(Token::Property(name, self.bytes(size_bytes)?))
            }
            END_NODE => Ok(Token::EndNode),
            END => Ok(Token::End),
            _ => Err(self.fault(Fault::NoToken)),
        }
    }

    pub(super) fn fault(&self, fault: Fault) -> Refusal {
        Refusal::Structure {
            fault,
            offset: self.at,
        }
    }

    fn word(&mut self) -> Result<u32, Refusal> {
        let value = word(self.structure, self.at).ok_or(self.fault(Fault::Ends))?;
        self.at += 4;
        Ok(value)
    }

    /// `size_bytes` bytes, and what pads them to whole words.
    fn bytes(&mut self, size_bytes: usize) -> Result<&'t [u8], Refusal> {
        let bytes = self
            .structure
            .get(self.at..)
            .and_then(|rest| rest.get(..size_bytes))
            .ok_or(self.fault(Fault::Ends))?;
        self.at += size_bytes.next_multiple_of(4);
        Ok(bytes)
    }

    fn node_name(&mut self) -> Result<&'t str, Refusal> {
        let name = self
            .structure
            .get(self.at..)
            .and_then(name)
            .ok_or(self.fault(Fault::Name))?;
        self.bytes(name.len() + 1)?;
        Ok(name)
    }

    fn property_name(&mut self) -> Result<&'t str, Refusal> {
        let offset = self.word()? as usize;
        self.strings
            .get(offset..)
            .and_then(name)
            .filter(|name| !name.is_empty())
            .ok_or(self.fault(Fault::Name))
    }
}

/// The name at the start of `bytes`, which a NUL ends.
fn name(bytes: &[u8]) -> Option<&str> {
    // Bounded, so that a block full of properties with endless names is not read again for each.
    let bytes = bytes.get(..MAX_NAME_BYTES + 1).unwrap_or(bytes);
    let length = bytes.iter().position(|&byte| byte == 0)?;
    let name = bytes.get(..length)?;
    let is_name = name
        .iter()
        .all(|&byte| byte.is_ascii_graphic() && byte != b'/');
    core::str::from_utf8(name).ok().filter(|_| is_name)
}

/// Takes the NOPs out of the structure block of `blob`, in place: the tree means the same after.
///
/// `blob` has been read to its end by [`Tokens`] without a refusal, which says where tokens are.
pub(super) fn take_nops_out(blob: &mut [u8], header: &Header) -> Option<()> {
    let start = header.structure_at as usize;
    let end = start.checked_add(header.structure_bytes as usize)?;
    let structure = blob.get_mut(start..end)?;
    let (mut from, mut to) = (0, 0);
    loop {
        let token = word(structure, from)?;
        let size_bytes = match token {
            BEGIN_NODE => 4 + (name(structure.get(from + 4..)?)?.len() + 1).next_multiple_of(4),
            PROPERTY => 12 + (word(structure, from + 4)? as usize).next_multiple_of(4),
            _ => 4,
        };
        if token != NOP {
            structure.get(from..from.checked_add(size_bytes)?)?;
            structure.copy_within(from..from + size_bytes, to);
            to += size_bytes;
        }
        from += size_bytes;
        if token == END {
            break;
        }
    }
    let at = Header::STRUCTURE_BYTES_AT;
    let size = blob.get_mut(at..at + 4)?;
    size.copy_from_slice(&u32::try_from(to).ok()?.to_be_bytes());
    Some(())
}
