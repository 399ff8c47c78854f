//! The float arithmetic of the class `i16.1`, and the three builds of it that a processor chooses from.

pub(crate) mod lanes;
pub(crate) mod level;
pub(crate) mod rows;
