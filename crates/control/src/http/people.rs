//! People.

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{Code, CreatePerson, PageQuery, Person, PersonId, PersonPatch, Scope, paths};
use dawn_identity::NetworkId;

use super::answer::{Outcome, ok, tagged, unchanged};
use super::extract::{Ask, At, In};
use super::view;
use crate::caller::Caller;
use crate::control::{Answer, Control, Done, maybe_plain, plain, random};
use crate::issue;
use crate::refusal::Refusal;
use crate::store::people::{self, PersonRow};

fn name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        return Err(Refusal::because(Code::Invalid, "a person has a name"));
    }
    plain("the name of a person", name)
}

/// `GET /v1/networks/{network}/people`
pub(super) async fn list(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<PageQuery>,
) -> Outcome {
    caller.may(Scope::PeopleRead, Some(&id))?;
    let after = view::after("people", Some(&id), query.cursor.as_ref())?.unwrap_or_default();
    let mut connection = control.store.read().await?;
    let rows = people::list(&mut connection, id, after, i64::from(query.items()) + 1).await?;
    let items = rows.into_iter().map(|row| (row.number, row.person)).collect();
    ok(&view::page("people", Some(&id), items, query.items())?)
}

/// `POST /v1/networks/{network}/people`
pub(super) async fn create(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<CreatePerson>,
) -> Outcome {
    caller.may(Scope::PeopleWrite, Some(&id))?;
    name(&body.name)?;
    maybe_plain("a note", body.note.as_deref())?;
    let answer = control
        .change(&caller, Some(id), "person.create", move |tx| {
            Box::pin(async move {
                issue::network(tx, id).await?;
                let mut row = PersonRow {
                    network: id,
                    number: 0,
                    revision: 0,
                    person: Person {
                        id: PersonId::from_bytes(random()),
                        name: body.name,
                        note: body.note.filter(|note| !note.is_empty()),
                        devices: 0,
                        created_at: tx.now,
                    },
                };
                tx.add_person(&mut row).await?;
                let answer = Answer::with(201, &row.person)?.tagged(row.revision);
                Ok(Done::to(&row.person.id, answer.at(paths::person(&id, row.person.id))))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `GET /v1/networks/{network}/people/{person}`
pub(super) async fn get(
    State(control): State<Control>,
    caller: Caller,
    At((id, person)): At<(NetworkId, PersonId)>,
) -> Outcome {
    caller.may(Scope::PeopleRead, Some(&id))?;
    let row = people::get(&mut *control.store.read().await?, id, person).await?;
    tagged(&caller, row.revision, &row.person)
}

/// `PATCH /v1/networks/{network}/people/{person}`
pub(super) async fn patch(
    State(control): State<Control>,
    caller: Caller,
    At((id, person)): At<(NetworkId, PersonId)>,
    In(body): In<PersonPatch>,
) -> Outcome {
    caller.may(Scope::PeopleWrite, Some(&id))?;
    if let Some(new) = &body.name {
        name(new)?;
    }
    maybe_plain("a note", body.note.as_deref())?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(&caller, Some(id), "person.change", move |tx| {
            Box::pin(async move {
                let mut row = people::get(tx.connection, id, person).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if let Some(name) = body.name {
                    row.person.name = name;
                }
                if let Some(note) = body.note {
                    row.person.note = Some(note).filter(|note| !note.is_empty());
                }
                tx.set_person(&mut row).await?;
                Ok(Done::to(&person, Answer::with(200, &row.person)?.tagged(row.revision)))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `DELETE /v1/networks/{network}/people/{person}`: only one without devices.
pub(super) async fn remove(
    State(control): State<Control>,
    caller: Caller,
    At((id, person)): At<(NetworkId, PersonId)>,
) -> Outcome {
    caller.may(Scope::PeopleWrite, Some(&id))?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(&caller, Some(id), "person.remove", move |tx| {
            Box::pin(async move {
                let row = people::get(tx.connection, id, person).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if row.person.devices > 0 {
                    let refusal = Refusal::because(Code::Conflict, "devices belong to this person");
                    return Err(refusal.next("give them to somebody else first").into());
                }
                tx.remove_person(id, person).await?;
                Ok(Done::to(&person, Answer::empty()))
            })
        })
        .await?;
    Ok(answer.into_response())
}
