//! BootcNodePool and BootcNode as stored: types, limits, names. No decisions.
