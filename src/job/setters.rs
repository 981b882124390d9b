//! Setters of a job: each takes the job and gives it back with one setting changed.

macro_rules! setters {
    ($job:ident; $($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),+) = $value:expr;)+) => {
        impl $job {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, $($arg: $ty),+) -> Self {
                self.$name = $value;
                self
            })+
        }
    };
}

pub(super) use setters;
