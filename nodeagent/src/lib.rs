//! The host side of the bootc operator.
