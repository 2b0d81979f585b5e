//! A part of a state with its hash: parts that an event leaves alone are neither copied nor hashed again.

use std::{
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use ahash::RandomState;

#[derive(Clone, Debug)]
pub(crate) struct Hashed<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash + Clone> Hashed<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { hash: hash(&value), value: Arc::new(value) }
    }

    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Arc::make_mut(&mut self.value));
        self.hash = hash(&*self.value);
        result
    }

    pub(crate) fn hash_value(&self) -> u64 {
        self.hash
    }
}

fn hash<T: Hash>(value: &T) -> u64 {
    RandomState::with_seeds(1, 2, 3, 4).hash_one(value)
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.value == other.value
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
