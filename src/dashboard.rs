//! A static site from a store: what moved, and every series over the commits of a branch. World: reads the store, writes
//! a folder.

pub mod data;
pub mod pages;
