//! The cluster side of the bootc operator.
