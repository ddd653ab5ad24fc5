//! What is shown in a list of MCP (prompts, resources, templates): unique, sorted, and encoded once.
//!
//! **Invariant**: keys are unique and in byte order; equal items make equal text, byte for byte.
//! **Bounds**: the number that `new` is given; `OFFER_LIST_BYTES_MAX` for the text.
//! Left out on purpose: tools (`set.rs`), whose set knows more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::limits::OFFER_LIST_BYTES_MAX;

/// Something that a list shows.
pub trait Listed {
    /// What it is called, in the log.
    fn kind(&self) -> &'static str;
    /// By what it is asked for; unique on an instance.
    fn key(&self) -> &str;
    /// By what else it can be asked for where it is the only one.
    fn short_key(&self) -> Option<&str>;
    /// The skill it is from.
    fn skill(&self) -> &str;
    /// As the list shows it, in JSON.
    fn encode(&self) -> Vec<u8>;
}

#[derive(Debug)]
pub struct Listing<T> {
    items: Vec<T>,
    short: HashMap<String, Option<usize>>,
    left_out: Vec<String>,
    encoded: Arc<[u8]>,
}

impl<T> Default for Listing<T> {
    fn default() -> Listing<T> {
        Listing { items: Vec::new(), short: HashMap::new(), left_out: Vec::new(), encoded: b"[]".as_slice().into() }
    }
}

impl<T: Listed> Listing<T> {
    /// A list of at most `max`. Of two with the same key the first is taken.
    pub fn new(given: impl IntoIterator<Item = T>, max: usize) -> Listing<T> {
        let mut given: Vec<Option<T>> = given.into_iter().map(Some).collect();
        let chosen = choose(given.iter().flatten().map(|item| item as &dyn Listed).collect(), max);
        let items = chosen.places.into_iter().filter_map(|place| given.get_mut(place)?.take()).collect();
        Listing { items, short: chosen.short, left_out: chosen.left_out, encoded: chosen.encoded }
    }

    pub fn items(&self) -> &[T] {
        &self.items
    }

    pub fn find(&self, key: &str) -> Option<&T> {
        let index = self.items.binary_search_by(|item| item.key().cmp(key)).ok();
        index.or_else(|| self.short.get(key).copied().flatten()).map(|index| &self.items[index])
    }

    /// Why items that should be here are not; for the log.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// JSON text: the array.
    pub fn encoded(&self) -> Arc<[u8]> {
        Arc::clone(&self.encoded)
    }
}

/// A listing but for its items, of which it has the places.
struct Chosen {
    places: Vec<usize>,
    short: HashMap<String, Option<usize>>,
    left_out: Vec<String>,
    encoded: Arc<[u8]>,
}

/// Of whatever kind the items are: it is in the program once.
fn choose(given: Vec<&dyn Listed>, max: usize) -> Chosen {
    let (mut items, mut left_out) = (BTreeMap::<&str, (usize, &dyn Listed, Vec<u8>)>::new(), Vec::new());
    let mut bytes = 2;
    for (place, item) in given.into_iter().enumerate() {
        let encoded = item.encode();
        let reason = match items.get(item.key()) {
            Some((_, first, _)) => format!("the skill {} has the same", first.skill()),
            None if items.len() >= max => format!("more than {max}"),
            None if bytes + encoded.len() + 1 > OFFER_LIST_BYTES_MAX => {
                format!("the list would be larger than {OFFER_LIST_BYTES_MAX} bytes")
            }
            None => {
                bytes += encoded.len() + 1;
                items.insert(item.key(), (place, item, encoded));
                continue;
            }
        };
        left_out.push(format!("skill={} {}={:?} is left out: {reason}", item.skill(), item.kind(), item.key()));
    }
    let mut short: HashMap<String, Option<usize>> = HashMap::new();
    for (index, (_, item, _)) in items.values().enumerate() {
        let Some(key) = item.short_key() else { continue };
        short.entry(key.to_owned()).and_modify(|unique| *unique = None).or_insert(Some(index));
    }
    let places = items.values().map(|(place, ..)| *place).collect();
    let texts: Vec<Vec<u8>> = items.into_values().map(|(.., encoded)| encoded).collect();
    let encoded = [b"[".as_slice(), &texts.join(&b','), b"]"].concat().into();
    Chosen { places, short, left_out, encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(&'static str, &'static str, usize);

    impl Listed for Item {
        fn kind(&self) -> &'static str {
            "item"
        }

        fn key(&self) -> &str {
            self.0
        }

        fn short_key(&self) -> Option<&str> {
            self.0.split_once('.').map(|(_, short)| short)
        }

        fn skill(&self) -> &str {
            self.1
        }

        fn encode(&self) -> Vec<u8> {
            match self.2 {
                0 => format!("\"{}\"", self.0).into_bytes(),
                size => vec![b'1'; size],
            }
        }
    }

    #[test]
    fn lists_are_sorted_unique_and_bounded() {
        assert_eq!(&Listing::<Item>::default().encoded()[..], b"[]");
        assert_eq!(&Listing::<Item>::new([], 9).encoded()[..], b"[]");
        let items =
            [Item("s.b", "s", 0), Item("a.b", "a", 0), Item("a.c", "a", 0), Item("a.c", "z", 0), Item("q", "q", 0)];
        let list = Listing::new(items, 3);
        assert_eq!(&list.encoded()[..], br#"["a.b","a.c","s.b"]"#);
        assert_eq!(
            list.left_out(),
            [
                r#"skill=z item="a.c" is left out: the skill a has the same"#,
                r#"skill=q item="q" is left out: more than 3"#
            ]
        );
        for (key, expected) in [("a.b", Some("a.b")), ("c", Some("a.c")), ("b", None), ("q", None)] {
            assert_eq!(list.find(key).map(|item| item.0), expected, "{key}");
        }
        let list = Listing::new([Item("a", "s", OFFER_LIST_BYTES_MAX - 10), Item("b", "s", 10), Item("c", "s", 0)], 9);
        assert_eq!(list.items().len(), 2);
        assert!(list.encoded().len() <= OFFER_LIST_BYTES_MAX);
        assert_eq!(list.left_out().len(), 1);
    }
}
