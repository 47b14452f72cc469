//! The one integration binary: the program as its users run it. Nothing here leaves the loopback interface.

mod statistics;
