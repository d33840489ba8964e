//! The parts that decoders are put together from. None knows a family, a file or a cache.

pub mod attention;
pub mod experts;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod packed;
pub mod rope;
