//! What a member may do for its network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One role of a member. A certificate carries a set of them, [`Roles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A device of the person the network belongs to: may admit, may revoke.
    Owner,
    /// May admit members and guests, and revoke.
    Admin,
    /// Takes part.
    Member,
    /// Takes part where policy lets guests.
    Guest,
    /// Issues certificates to members and guests for the network, and takes no part: a control plane. A certificate with
    /// this role has no other, and is nobody's membership.
    Issuer,
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a role: expected owner, admin, member, guest or issuer")]
pub struct ParseRoleError;

impl Role {
    /// All roles, the mightiest first.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Member, Self::Guest, Self::Issuer];

    /// The word on the wire and in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Guest => "guest",
            Self::Issuer => "issuer",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::Admin => 2,
            Self::Member => 4,
            Self::Guest => 8,
            Self::Issuer => 16,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(ParseRoleError)
    }
}

/// A set of roles. Serde: a list of role names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Role>", into = "Vec<Role>")]
pub struct Roles(u8);

impl Roles {
    /// No role at all.
    pub const NONE: Self = Self(0);

    /// Whether `role` is in the set.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The set with `role` added.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, the mightiest first.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }

    /// Whether the holder may issue certificates to others.
    pub const fn may_admit(self) -> bool {
        self.needs_network_key()
    }

    /// Whether the holder may revoke members.
    pub const fn may_revoke(self) -> bool {
        self.needs_network_key()
    }

    /// Whether only the network key may grant this set.
    pub const fn needs_network_key(self) -> bool {
        self.contains(Role::Owner) || self.contains(Role::Admin) || self.contains(Role::Issuer)
    }

    /// Whether a certificate with these roles makes its subject a member: an issuer is none, whatever else it says.
    pub const fn makes_member(self) -> bool {
        !self.contains(Role::Issuer)
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self::NONE.with(role)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl From<Vec<Role>> for Roles {
    fn from(roles: Vec<Role>) -> Self {
        roles.into_iter().collect()
    }
}

impl From<Roles> for Vec<Role> {
    fn from(roles: Roles) -> Self {
        roles.iter().collect()
    }
}

/// The names, separated by commas.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Role::as_str).collect();
        f.pad(&names.join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_admins_and_issuers_may_admit_and_revoke() {
        for role in Role::ALL {
            let mighty = matches!(role, Role::Owner | Role::Admin | Role::Issuer);
            assert_eq!(Roles::from(role).may_admit(), mighty);
            assert_eq!(Roles::from(role).may_revoke(), mighty);
            assert_eq!(Roles::from(role).needs_network_key(), mighty);
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!(!Roles::NONE.may_admit());
        assert_eq!("root".parse::<Role>(), Err(ParseRoleError));
    }

    #[test]
    fn an_issuer_is_no_member_whatever_else_it_says() {
        for role in Role::ALL {
            assert_eq!(Roles::from(role).makes_member(), role != Role::Issuer);
            assert!(!Roles::from(role).with(Role::Issuer).makes_member());
        }
    }

    #[test]
    fn a_set_of_roles_is_a_list_of_names() {
        let roles: Roles = [Role::Member, Role::Admin, Role::Member].into_iter().collect();
        assert_eq!(roles.to_string(), "admin,member");
        let json = serde_json::to_string(&roles).unwrap();
        assert_eq!(json, r#"["admin","member"]"#);
        assert_eq!(serde_json::from_str::<Roles>(&json).unwrap(), roles);
    }
}
