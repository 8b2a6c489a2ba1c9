//! Records that stand in a row, linked through themselves: to join and to leave is constant work
//! and takes no memory.

use core::marker::PhantomData;

use crate::hw::{Key, Platform, Slab};

/// What a record has for each row that it can stand in.
pub(super) struct Link<T> {
    previous: Option<Key<T>>,
    next: Option<Key<T>>,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self {
            previous: None,
            next: None,
        }
    }
}

/// The ends of a row of the kind `W`.
pub(super) struct List<T, W> {
    first: Option<Key<T>>,
    last: Option<Key<T>>,
    count: u32,
    row: PhantomData<fn() -> W>,
}

impl<T, W> Default for List<T, W> {
    fn default() -> Self {
        Self {
            first: None,
            last: None,
            count: 0,
            row: PhantomData,
        }
    }
}

/// A record that can stand in a row of the kind `W`.
pub(super) trait Linked<W>: Sized {
    fn link(&mut self) -> &mut Link<Self>;
    fn next(&self) -> Option<Key<Self>>;
}

/// Makes `$record` able to stand in the row `$row`, through its field `$field`.
macro_rules! linked {
    ($record:ty, $row:ty, $field:ident) => {
        impl crate::space::list::Linked<$row> for $record {
            fn link(&mut self) -> &mut crate::space::list::Link<Self> {
                &mut self.$field
            }
            fn next(&self) -> Option<crate::hw::Key<Self>> {
                self.$field.following()
            }
        }
    };
}
pub(super) use linked;

impl<T> Link<T> {
    pub(super) const fn following(&self) -> Option<Key<T>> {
        self.next
    }
}

impl<T: Linked<W>, W> List<T, W> {
    pub(super) const fn first(&self) -> Option<Key<T>> {
        self.first
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lets `key`, which stands in no row of this kind, join at the end.
    pub(super) fn push<P: Platform>(&mut self, records: &mut Slab<'_, P, T>, key: Key<T>) {
        let last = self.last;
        let Some(record) = records.get_mut(key) else {
            return;
        };
        *<T as Linked<W>>::link(record) = Link {
            previous: last,
            next: None,
        };
        match last.and_then(|last| records.get_mut(last)) {
            Some(before) => <T as Linked<W>>::link(before).next = Some(key),
            None => self.first = Some(key),
        }
        self.last = Some(key);
        self.count += 1;
    }

    /// Lets `key`, which stands in this row, leave it.
    pub(super) fn remove<P: Platform>(&mut self, records: &mut Slab<'_, P, T>, key: Key<T>) {
        let Some(record) = records.get_mut(key) else {
            return;
        };
        let Link { previous, next } = core::mem::take(<T as Linked<W>>::link(record));
        match previous.and_then(|before| records.get_mut(before)) {
            Some(before) => <T as Linked<W>>::link(before).next = next,
            None => self.first = next,
        }
        match next.and_then(|after| records.get_mut(after)) {
            Some(after) => <T as Linked<W>>::link(after).previous = previous,
            None => self.last = previous,
        }
        self.count = self.count.saturating_sub(1);
    }

    /// Each of the row, from the first.
    pub(super) fn iter<'a, 'p, P: Platform>(
        &self,
        records: &'a Slab<'p, P, T>,
    ) -> impl Iterator<Item = (Key<T>, &'a T)> + use<'a, 'p, P, T, W> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let key = at?;
            let record = records.get(key)?;
            at = <T as Linked<W>>::next(record);
            Some((key, record))
        })
    }
}
