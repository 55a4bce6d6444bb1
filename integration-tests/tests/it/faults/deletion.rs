//! One of two topics is deleted under load, and created again.
