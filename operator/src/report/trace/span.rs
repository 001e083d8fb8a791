//! A span as plain data, before any library has a say in it.

use fsm::{NodeName, Timestamp, node::Trace};
use sha2::{Digest as _, Sha256};

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: u128,
    /// Itself.
    pub id: u64,
    /// The span above it; 0 at the top.
    pub parent: u64,
    /// What was done.
    pub name: &'static str,
    /// When that began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// What happened meanwhile.
    pub marks: Vec<Mark>,
    /// Why it had no success.
    pub error: Option<String>,
}

/// Something that happened while a span ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What, in one word.
    pub name: String,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
}

/// A name with a value.
pub type Attribute = (&'static str, Value);

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The trace of one update of one node, and its topmost span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: u128,
    pub(super) root: u64,
}

impl Context {
    /// Out of a W3C `traceparent`.
    pub(super) fn of(trace: &Trace) -> Option<Self> {
        let mut parts = trace.parent.split('-').skip(1);
        let id = u128::from_str_radix(parts.next()?, 16).ok()?;
        let root = u64::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { trace: id, root })
    }

    /// The id of the span of this name that began then. It follows from what it is, so a process that
    /// starts anew repeats a span and makes no second one.
    pub(super) fn id(self, name: &str, start: Timestamp) -> u64 {
        self.hashed(name, start.0)
    }

    /// The id of the span of the drain with that number. When it began, each process sees anew.
    pub(super) fn drain(self, attempt: u32) -> u64 {
        self.hashed("drain", attempt.into())
    }

    fn hashed(self, name: &str, number: i64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.trace.to_be_bytes());
        hash.update(number.to_be_bytes());
        hash.update(name);
        let hash: [u8; 32] = hash.finalize().into();
        let (first, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*first).max(1)
    }

    /// A span below `parent`.
    pub(super) fn span(
        self,
        parent: u64,
        (name, key): (&'static str, &str),
        node: &NodeName,
        start: Timestamp,
        end: Timestamp,
    ) -> Span {
        Span {
            trace: self.trace,
            id: self.id(key, start),
            parent,
            name,
            start,
            end: end.max(start),
            attributes: vec![("k8s.node.name", node.as_str().into())],
            marks: Vec::new(),
            error: None,
        }
    }
}
