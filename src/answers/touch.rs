//! What a call changes, and what an answer depends on: the two sides of every decision about old answers.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use smallvec::SmallVec;
use smol_str::{SmolStr, StrExt as _};

/// An object's name in lower case.
pub type Lower = SmolStr;

/// Letters and digits by their code, in lower case; 0 for everything else.
const PLAIN: [u8; 256] = {
    let mut plain = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            plain[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    plain
};

/// The first 15 characters of a record id, in lower case. Ids that differ by case alone are one here, which makes too much
/// old and never too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowId([u8; 15]);

impl RowId {
    /// The id `text` stands for: 15 or 18 letters and digits (facts 7.5).
    pub fn parse(text: &str) -> Option<Self> {
        let (long, check) = text.as_bytes().split_first_chunk::<15>()?;
        let (mut id, mut odd) = ([0; 15], false);
        for (to, byte) in id.iter_mut().zip(long) {
            *to = PLAIN[usize::from(*byte)];
            odd |= *to == 0;
        }
        if odd || !matches!(check.len(), 0 | 3) || !check.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        Some(Self(id))
    }
}

impl Serialize for RowId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(ser::Error::custom)?;
        to.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for RowId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = SmolStr::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a record id"))
    }
}

/// An object's name as it is compared.
pub fn lower(name: &str) -> Lower {
    name.to_ascii_lowercase_smolstr()
}

/// Something that a call may change. Replicas tell each other in the short names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Touch {
    /// Anything: rows, what objects look like, who may see what.
    #[serde(rename = "all")]
    Everything,
    /// Rows of any object.
    #[serde(rename = "rows")]
    Rows,
    /// Rows of one object, which ones is not known.
    #[serde(rename = "o")]
    Object(Lower),
    /// One row.
    #[serde(rename = "r")]
    Row(Lower, RowId),
    /// Rows that were not there before.
    #[serde(rename = "n")]
    New(Lower),
}

/// What a call may change; nothing for a call that only reads.
pub type Touches = SmallVec<[Touch; 2]>;

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deps {
    /// What objects look like; of one object, or all of them.
    Metadata(Option<Lower>),
    /// One row.
    Row(Lower, RowId),
    /// The rows of some objects.
    Objects(SmallVec<[Lower; 2]>),
}

impl Deps {
    /// The objects in question.
    pub fn objects(&self) -> &[Lower] {
        match self {
            Self::Metadata(object) => object.as_slice(),
            Self::Row(object, _) => std::slice::from_ref(object),
            Self::Objects(objects) => objects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lengths_of_an_id_are_one_row() {
        assert_eq!(RowId::parse("001D000000IqhSL"), RowId::parse("001D000000IqhSLIAZ"));
        assert_ne!(RowId::parse("001D000000IqhSL"), RowId::parse("001D000000IqhSM"));
        for wrong in ["", "001", "001D000000IqhS-", "001D000000IqhSLI", "@{ref.id}aaaaaa"] {
            assert_eq!(RowId::parse(wrong), None, "{wrong}");
        }
    }
}
