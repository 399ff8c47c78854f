//! What of the network an aggregate shows, and under which names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use dawn_identity::AgentAddress;

/// How tools are disclosed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Disclosure {
    /// Every tool is listed.
    #[default]
    Full,
    /// Two tools are listed, `find_tools` and `call_tool`; the others are found and called by them, and a session lists
    /// what it found.
    Search,
}

impl std::str::FromStr for Disclosure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "search" => Ok(Self::Search),
            other => Err(format!("{other:?} is neither \"full\" nor \"search\"")),
        }
    }
}

/// A name in which `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; without `*` it is one name.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a name fits.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(first) = parts.next() else { return false };
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(middle) = last.replace(part) {
                let Some(at) = rest.find(middle) else { return false };
                rest = &rest[at + middle.len()..];
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }
}

/// What the one `*` of a pattern stands for in a name.
fn between<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    name.strip_prefix(before)?.strip_suffix(after)
}

/// What one endpoint shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Agents, as `node:agent`; none means all.
    pub agents: Vec<Pattern>,
    /// Tools and prompts that are shown, under their names `node__agent__name`; none means all.
    pub only: Vec<Pattern>,
    /// Tools and prompts that are not shown.
    pub hide: Vec<Pattern>,
    /// Other names for tools and prompts, by `node__agent__name`; a `*` in both stands for the same.
    pub rename: BTreeMap<String, String>,
    /// Other descriptions for tools, by `node__agent__name`.
    pub describe: BTreeMap<String, String>,
    /// How tools are disclosed when the client does not say.
    pub disclosure: Disclosure,
}

impl View {
    /// Whether an agent belongs to the view.
    #[must_use]
    pub fn has_agent(&self, address: &AgentAddress) -> bool {
        let address = address.to_string();
        self.agents.is_empty() || self.agents.iter().any(|pattern| pattern.fits(&address))
    }

    /// Whether a tool or prompt of the full name belongs to the view.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(name));
        (self.only.is_empty() || fits(&self.only)) && !fits(&self.hide)
    }

    /// The name under which a full name is shown. One that would be shown as another already is stays as it is.
    pub(super) fn shown<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        let exact = self.rename.get(name).map(|other| Cow::Borrowed(other.as_str()));
        let by_pattern = || {
            let mut patterns = self.rename.iter().filter(|(from, _)| from.contains('*'));
            patterns.find_map(|(from, to)| Some(Cow::Owned(to.replacen('*', between(from, name)?, 1))))
        };
        exact
            .or_else(by_pattern)
            .filter(|shown| self.full(shown) == name)
            .unwrap_or(Cow::Borrowed(name))
    }

    /// The full name of what is shown under a name.
    pub(super) fn full<'a>(&'a self, shown: &'a str) -> Cow<'a, str> {
        let exact = self.rename.iter().find(|(_, to)| *to == shown);
        let by_pattern = || {
            let mut patterns = self.rename.iter().filter(|(from, _)| from.contains('*'));
            patterns.find_map(|(from, to)| Some(Cow::Owned(from.replacen('*', between(to, shown)?, 1))))
        };
        exact
            .map(|(from, _)| Cow::Borrowed(from.as_str()))
            .or_else(by_pattern)
            .unwrap_or(Cow::Borrowed(shown))
    }
}

/// Every view of a node: of all agents, and of its groups. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Views(Arc<RwLock<Arc<ByGroup>>>);

type ByGroup = BTreeMap<Option<String>, Arc<View>>;

impl Views {
    /// Replaces all views; `None` is that of `/mcp`, without which it shows everything.
    pub fn set(&self, views: BTreeMap<Option<String>, View>) {
        let views = views.into_iter().map(|(name, view)| (name, Arc::new(view))).collect();
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(views);
    }

    /// The view of a group, or of `/mcp`.
    #[must_use]
    pub fn get(&self, group: Option<&str>) -> Option<Arc<View>> {
        let views = Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        match group {
            None => Some(views.get(&None).cloned().unwrap_or_default()),
            Some(_) => views.get(&group.map(str::to_owned)).cloned(),
        }
    }

    /// The names of the groups.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let views = Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        views.keys().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("lab:files", "lab:files", true),
            ("lab:files", "lab:files2", false),
            ("lab:*", "lab:files", true),
            ("*:files", "lab:files", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*__delete_*", "lab__files__delete_all", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).fits(name), fits, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_made_of_a_names_parts_fits_it(parts in proptest::collection::vec("[a-z]{0,4}", 1..5), gaps in proptest::collection::vec("[a-z]{0,4}", 4)) {
            let name: String = parts.iter().zip(gaps.iter().chain(std::iter::repeat(&gaps[0]))).map(|(part, gap)| format!("{part}{gap}")).collect();
            let pattern = format!("{}*", parts.join("*"));
            prop_assert!(Pattern::new(pattern).fits(&name));
        }
    }

    #[test]
    fn names_are_shown_hidden_and_found_again() {
        let view = View {
            only: vec![Pattern::new("lab__*")],
            hide: vec![Pattern::new("*__rm")],
            rename: [("lab__files__read".to_owned(), "read".to_owned())].into(),
            ..View::default()
        };
        assert!(view.has_name("lab__files__read") && !view.has_name("lab__files__rm") && !view.has_name("den__x__y"));
        assert_eq!(view.shown("lab__files__read"), "read");
        assert_eq!(view.full("read"), "lab__files__read");
        assert_eq!(view.full("other"), "other");
    }

    #[test]
    fn a_star_renames_many_and_what_comes_second_keeps_its_name() {
        let rename = [
            ("den__web__*", "web_*"),
            ("lab__files__*", "*"),
            ("other__files__*", "*"),
        ];
        let view = View {
            rename: rename.map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
            ..View::default()
        };
        for (full, shown) in [
            ("lab__files__read", "read"),
            ("den__web__get", "web_get"),
            ("other__files__read", "other__files__read"),
            ("x__y__z", "x__y__z"),
        ] {
            assert_eq!(view.shown(full), shown);
        }
        assert_eq!(view.full("read"), "lab__files__read");
        assert_eq!(view.full("web_get"), "den__web__get");
    }
}
