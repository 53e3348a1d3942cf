//! What kind of call it is: calls of one fingerprint take about equally long.
//!
//! A fingerprint is made of the route, what is done to which object, how many records it is about, and, where that tells
//! more than the route, the shape of the query string (SOQL without its literals) or the path of Apex code. It is a keyed
//! hash: nothing can be read from it.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use smallvec::SmallVec;

use crate::call::{Family, Meaning, Operation};

/// As much of a query string as is looked at.
const LOOKED_AT: usize = 2_048;
/// Digits of a number that tell its size.
const DIGITS: usize = 4;
/// Segments of an Apex path behind `apexrest` that name code rather than a record.
const APEX_SEGMENTS: usize = 3;

/// The fingerprint of a call for `path_and_query`, of which the effective `meaning` is known.
pub fn fingerprint(meaning: &Meaning, path_and_query: &str, key: &RandomState) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write(meaning.template.as_bytes());
    let parts = meaning.parts.len();
    // Twice as many records are of another kind; a few more are not.
    let size = usize::BITS - parts.leading_zeros();
    hasher.write_u32((size << 16) | ((meaning.family.index() as u32) << 8) | meaning.operation.index() as u32);
    if let Some(object) = &meaning.object {
        hasher.write(object.as_bytes());
    }
    if meaning.operation == Operation::Query {
        let query = memchr::memchr(b'?', path_and_query.as_bytes()).and_then(|at| path_and_query.get(at + 1..));
        if let Some(query) = query {
            hasher.write(&shape(query.as_bytes()));
        }
    } else if meaning.family == Family::Apex {
        let path = path_and_query.split('?').next().unwrap_or_default();
        let code = path.split('/').filter(|segment| !segment.is_empty()).skip(2).take(APEX_SEGMENTS);
        for segment in code.take_while(|segment| !is_id(segment)) {
            hasher.write(segment.as_bytes());
            hasher.write_u8(b'/');
        }
    }
    hasher.finish()
}

/// Whether a segment names a record: those have digits, and code rarely has.
fn is_id(segment: &str) -> bool {
    segment.len() >= 15 || segment.bytes().next().is_some_and(|first| first.is_ascii_digit())
}

/// A query string without its literals: texts are one mark, lists of texts too, numbers keep how many digits they have, and
/// case and spaces do not matter.
fn shape(query: &[u8]) -> SmallVec<[u8; 256]> {
    let mut shape: SmallVec<[u8; 256]> = SmallVec::new();
    let mut bytes = Decoded(query.get(..LOOKED_AT).unwrap_or(query));
    let mut digits = 0;
    let mut after_word = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => {
                // To the end of the text; a quote behind a backslash is part of it.
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'\\' => drop(bytes.next()),
                        b'\'' => break,
                        _ => {}
                    }
                }
                // One more of a list says nothing new.
                if shape.ends_with(b"',") {
                    shape.pop();
                } else {
                    shape.push(b'\'');
                }
                after_word = false;
            }
            b'0'..=b'9' if !after_word => {
                digits += 1;
                if digits <= DIGITS {
                    shape.push(b'0');
                }
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                if !matches!(shape.last(), None | Some(b' ' | b',')) {
                    shape.push(b' ');
                }
                after_word = false;
            }
            byte => {
                shape.push(byte.to_ascii_lowercase());
                after_word = byte.is_ascii_alphanumeric() || byte == b'_';
            }
        }
        digits = 0;
    }
    shape
}

/// The bytes of a query string, decoded.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (first, rest) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, rest @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    self.0 = rest;
                    Some((high * 16 + low) as u8)
                }
                _ => Some(b'%'),
            },
            (byte, _) => Some(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::salesforce::{Costs, understand};

    fn of(method: &Method, path: &str) -> u64 {
        let key = RandomState::with_seeds(1, 2, 3, 4);
        fingerprint(&understand(method, path, &Costs::default()), path, &key)
    }

    fn query(soql: &str) -> u64 {
        let soql = soql.replace('%', "%25").replace(' ', "+").replace('\'', "%27");
        of(&Method::GET, &format!("/services/data/v62.0/query?q={soql}"))
    }

    #[test]
    fn literals_do_not_make_another_kind() {
        let one = query("SELECT Id FROM Account WHERE Name = 'Acme' AND X__c > 17 LIMIT 200");
        assert_eq!(query("SELECT Id FROM Account WHERE Name = 'O\\'Neil, Ltd' AND X__c > 42 LIMIT 500"), one);
        assert_eq!(query("select  Id from Account where Name = '' and X__c > 17 limit 200"), one);
        assert_ne!(query("SELECT Id FROM Account WHERE Name = 'Acme' AND X__c > 17 LIMIT 20000"), one);
        assert_ne!(query("SELECT Id, Name FROM Account WHERE Name = 'Acme' AND X__c > 17 LIMIT 200"), one);
        let some = query("SELECT Id FROM Account WHERE Id IN ('a','b')");
        assert_eq!(query("SELECT Id FROM Account WHERE Id IN ('c', 'd','e',  'f')"), some);
        assert_ne!(query("SELECT Field1__c FROM Account"), query("SELECT Field2__c FROM Account"));
    }

    #[test]
    fn encodings_of_the_same_query_are_the_same() {
        let plain = of(&Method::GET, "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Name='x'");
        let encoded =
            of(&Method::GET, "/services/data/v62.0/query?q=SELECT%20Id%20FROM%20Account%20WHERE%20Name%3D%27y%27");
        assert_eq!(plain, encoded);
    }

    #[test]
    fn routes_objects_methods_and_code_make_other_kinds() {
        let all = [
            of(&Method::GET, "/services/data/v62.0/sobjects/Account/001000000000001AAA"),
            of(&Method::DELETE, "/services/data/v62.0/sobjects/Account/001000000000001AAA"),
            of(&Method::GET, "/services/data/v62.0/sobjects/Contact/003000000000001AAA"),
            of(&Method::GET, "/services/apexrest/Nightly/Run"),
            of(&Method::GET, "/services/apexrest/Nightly/Stop"),
        ];
        let different: std::collections::BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(of(&Method::GET, "/services/data/v62.0/sobjects/Account/001000000000002AAA"), all[0]);
        assert_eq!(
            of(&Method::GET, "/services/apexrest/Invoice/a01000000000001AAA"),
            of(&Method::GET, "/services/apexrest/Invoice/a01000000000002AAA?x=1")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_query_has_a_shape_no_longer_than_it(query in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            proptest::prop_assert!(shape(&query).len() <= query.len());
        }
    }
}
