//! A bank shared by several replicas: one allowance, one truth.
//!
//! The store keeps the window of all replicas together, and who may spend how much of what is left. Its rules are pure
//! functions in [`rules`]; the script that a store runs is a transliteration of them. What a replica remembers in
//! between, and how it comes to terms with lost messages and a store that has lost its data, is in [`teller`].

pub mod rules;
pub mod state;
pub mod teller;

pub mod words;

#[cfg(test)]
mod losses;
#[cfg(test)]
mod sim;
