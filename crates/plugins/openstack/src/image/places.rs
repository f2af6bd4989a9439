//! One place for each image that an operation restores, so that those who mean the same one make it once.
//!
//! It is only a hint: whoever finds nothing here, after a crash or in another process, looks at what the operation has
//! announced.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The image that stands for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The new image.
    pub(crate) image: String,
    /// The resource that it was made for.
    pub(crate) by: String,
}

/// What stands for an image; held while it is made.
pub(crate) type Place = Arc<tokio::sync::Mutex<Option<Replaced>>>;

/// How many there are; the one that was asked for longest ago goes first.
const KEPT: usize = 256;

/// The places of all operations.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<VecDeque<(String, Place)>>);

impl Places {
    /// Returns the place of that name.
    pub(crate) fn of(&self, name: &str) -> Place {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.iter().position(|(known, _)| known == name);
        let entry = found.and_then(|at| places.remove(at));
        let (name, place) = entry.unwrap_or_else(|| (name.to_owned(), Place::default()));
        places.push_back((name, Arc::clone(&place)));
        if places.len() > KEPT {
            places.pop_front();
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_mean_the_same_share_a_place() {
        let places = Places::default();
        let new = Replaced { image: "new".to_owned(), by: "i@s".to_owned() };
        *places.of("a").lock().await = Some(new.clone());
        for other in 0..KEPT - 1 {
            assert_eq!(*places.of(&format!("other {other}")).lock().await, None);
        }
        assert_eq!(*places.of("a").lock().await, Some(new));
        for other in 0..KEPT {
            places.of(&format!("further {other}"));
        }
        assert_eq!(*places.of("a").lock().await, None);
    }
}
