//! Lists and texts with a limit, kept inline: discovery runs before there is a heap.

use core::fmt;
use core::ops::{Deref, DerefMut};

use arrayvec::{ArrayString, ArrayVec};

/// A list was full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// How many items it holds.
    pub limit: usize,
}

/// At most `N` items, in the order they were found; reads as a slice.
#[derive(Clone, PartialEq, Eq)]
pub struct List<T, const N: usize>(ArrayVec<T, N>);

impl<T, const N: usize> List<T, N> {
    /// No items.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Adds `item` at the end.
    ///
    /// # Errors
    ///
    /// [`Full`] if there are `N` already; the list is as before.
    pub fn push(&mut self, item: T) -> Result<(), Full> {
        self.0.try_push(item).map_err(|_| Full { limit: N })
    }

    /// Takes the last item away.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Forgets all items.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// At most `N` bytes of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize>(ArrayString<N>);

impl<const N: usize> Text<N> {
    /// No text.
    pub const fn new() -> Self {
        Self(ArrayString::new_const())
    }

    /// The first `N` bytes of `text`, less where a character would be cut.
    ///
    /// For what a person reads. What is acted upon goes through [`Text::whole`].
    pub fn start_of(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(ArrayString::from(&text[..end]).unwrap_or_default())
    }

    /// As much of what `arguments` print as fits.
    ///
    /// For what a person reads, like [`Text::start_of`].
    pub fn printed(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        // The only error is that it is full.
        let _ = fmt::Write::write_fmt(&mut text, arguments);
        text
    }

    /// All of `text`.
    ///
    /// # Errors
    ///
    /// [`Full`] if it has more than `N` bytes.
    pub fn whole(text: &str) -> Result<Self, Full> {
        ArrayString::from(text)
            .map(Self)
            .map_err(|_| Full { limit: N })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    /// By characters, for how a text comes in pieces is the compiler's choice.
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        piece
            .chars()
            .try_for_each(|letter| self.0.try_push(letter))
            .map_err(|_| fmt::Error)
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_refuses_and_stays_as_it_was() {
        let mut list = List::<u8, 2>::new();
        assert_eq!(list.push(1), Ok(()));
        assert_eq!(list.push(2), Ok(()));
        assert_eq!(list.push(3), Err(Full { limit: 2 }));
        assert_eq!(*list, [1, 2]);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(Text::<4>::start_of("abcde").as_str(), "abcd");
        assert_eq!(Text::<4>::start_of("abcü").as_str(), "abc");
        assert_eq!(Text::<4>::whole("abcde"), Err(Full { limit: 4 }));
        assert_eq!(
            Text::<4>::printed(format_args!("{}-{}", 12, 34)).as_str(),
            "12-3"
        );
    }
}
