//! Runs containers: chooses images, starts and stops containers, and removes them after the tests.

mod client;
mod container;
mod guard;
mod image;
mod options;
mod port;
mod server;

pub(crate) use self::client::variable;
pub(crate) use self::container::Container;
pub use self::guard::Guard;
pub use self::image::IMAGES;
pub(crate) use self::image::{Image, Service};
pub(crate) use self::options::Options;
pub use self::port::free_port;
pub use self::server::Server;
pub(crate) use self::server::Shared;
