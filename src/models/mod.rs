//! Networks of the literature, and networks whose weights are stored sparse.

mod builder;
mod compressed;
mod convnet;
mod file;
mod mlp;

pub use builder::{Builder, Init};
pub use compressed::Compressed;
pub use convnet::{digits_convnet, digits_shared, lecun_1989, lecun_1990, lenet_5};
pub use file::{from_checkpoint, load, save, to_checkpoint};
pub use mlp::{lenet_300_100, mlp};
