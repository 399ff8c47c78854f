//! Patterns: texts in which `*` stands for any characters, none included.

/// A text in which `*` stands for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; without `*` it is one text.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        // Several of them say what one says, and are compared as one.
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        Self(text)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one text alone.
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    pub(crate) fn any() -> Self {
        Self("*".to_owned())
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether a text fits. Takes time in proportion to both lengths at most.
    pub fn fits(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(first) = parts.next() else { return false };
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(middle) = last.replace(part) {
                let Some((_, after)) = rest.split_once(middle) else {
                    return false;
                };
                rest = after;
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }

    /// Whether everything that fits `other` fits this too. A `*` of `other` lies within a `*` of this where its text, the
    /// `*` taken for a character, fits: then whatever stands for it does.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.fits(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("*__delete_*", "lab__files__delete_all", true),
            ("*b*", "abc", true),
            ("a**c", "abc", true),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).fits(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn stars_beside_each_other_are_one() {
        assert!(Pattern::new("***").is_any());
        assert_eq!(Pattern::new("a**b*"), Pattern::new("a*b*"));
    }

    proptest! {
        #[test]
        fn a_pattern_made_of_a_names_parts_fits_it(parts in prop::collection::vec("[a-z]{0,4}", 1..5), gap in "[a-z]{0,4}") {
            let name: String = parts.iter().map(|part| format!("{part}{gap}")).collect();
            let pattern = format!("{}*", parts.join("*"));
            prop_assert!(Pattern::new(pattern).fits(&name));
        }

        #[test]
        fn what_fits_a_covered_pattern_fits_the_one_that_covers_it(
            wide in "[ab*]{0,6}", narrow in "[ab*]{0,6}", fill in "[ab]{0,3}",
        ) {
            let (wide, narrow) = (Pattern::new(wide), Pattern::new(narrow));
            if wide.covers(&narrow) {
                prop_assert!(wide.fits(&narrow.0.replace('*', &fill)));
            }
        }
    }
}
