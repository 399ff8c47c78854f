//! Who wants to do something.

use dawn_identity::{Membership, NodeId, Role, Roles};

/// A person whom an exposed gateway let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person<'a> {
    /// The subject of the access token.
    pub name: &'a str,
    /// Whether the gateway is that of the node that is asked.
    pub is_own: bool,
}

/// Who wants to do something: a node, and the person for whom it asks, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The node's id; empty where it is none in particular.
    pub node: String,
    /// Its name; empty where it is none in particular.
    pub name: &'a str,
    /// Its roles.
    pub roles: Roles,
    /// For whom it asks.
    pub person: Option<Person<'a>>,
}

impl<'a> Subject<'a> {
    /// Any node with this role.
    pub fn with_role(role: Role) -> Self {
        Self {
            node: String::new(),
            name: "",
            roles: Roles::from(role),
            person: None,
        }
    }

    /// A member, for itself.
    pub fn member(node: NodeId, name: &'a str, roles: Roles) -> Self {
        Self {
            node: node.to_string(),
            name,
            roles,
            person: None,
        }
    }

    /// Whether it is a guest and nothing more. Who has no role is as good as a guest.
    pub fn is_guest(&self) -> bool {
        let more = [Role::Owner, Role::Admin, Role::Member];
        !more.iter().any(|role| self.roles.contains(*role))
    }
}

impl<'a> From<&'a Membership> for Subject<'a> {
    fn from(membership: &'a Membership) -> Self {
        Self::member(membership.node, membership.name.as_str(), membership.roles)
    }
}
