//! Which registers the float arithmetic is compiled for. All levels give the same bits; they differ in speed alone.

/// One of the builds of the row functions that this processor can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Kind);

/// Can be made only by [`Level::available`], which looked at the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Level {
    /// The levels that this processor has, the fastest first. `baseline` is always the last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            found.extend(wide.then_some(Self(Kind::Avx512)));
            found.extend(is_x86_feature_detected!("avx2").then_some(Self(Kind::Avx2)));
        }
        found.push(Self(Kind::Baseline));
        found
    }

    /// What every processor of this architecture runs.
    #[must_use]
    pub const fn baseline() -> Self {
        Self(Kind::Baseline)
    }

    /// `avx512`, `avx2` or `baseline`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Baseline => "baseline",
        }
    }

    pub(super) const fn kind(self) -> Kind {
        self.0
    }
}

/// Compiles a function once for each level, and calls the one of the level that is its first argument.
macro_rules! by_level {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block)+) => {$(
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "slices of one block")]
        pub(crate) fn $name(level: $crate::numeric::level::Level, $($argument: $type),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::inline_always, clippy::too_many_arguments, reason = "one body, compiled for each level")]
            fn body($($argument: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments, reason = "slices of one block")]
            fn avx512($($argument: $type),*) $(-> $out)? {
                body($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments, reason = "slices of one block")]
            fn avx2($($argument: $type),*) $(-> $out)? {
                body($($argument),*)
            }

            match level.kind() {
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "nothing safe calls what needs a processor's features")]
                // SAFETY: a level of this kind is made by `Level::available` alone, which found these features.
                $crate::numeric::level::Kind::Avx512 => unsafe { avx512($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "nothing safe calls what needs a processor's features")]
                // SAFETY: a level of this kind is made by `Level::available` alone, which found this feature.
                $crate::numeric::level::Kind::Avx2 => unsafe { avx2($($argument),*) },
                $crate::numeric::level::Kind::Baseline => body($($argument),*),
            }
        }
    )+};
}
pub(crate) use by_level;
