//! What is shown of what is kept.

use dawn_control_api::{Cursor, Device, Network, Page, State, challenge};
use dawn_identity::{NetworkId, UnixTime};

use crate::control::{Control, now};
use crate::error::ControlError;
use crate::issue;
use crate::refusal::Refusal;
use crate::store::count;
use crate::store::devices::DeviceRow;
use crate::store::networks::NetworkRow;

/// A device, with whether it is there.
pub(super) fn device(control: &Control, row: &DeviceRow) -> Device {
    let now = now();
    let live = control.live.network(&row.network);
    let (presence, presence_since, last_seen) = match live {
        Some(live) => live.presence(row, now),
        None => (row.presence, row.presence_since, row.last_seen),
    };
    let words = || challenge::words(&row.network, &row.node).to_string();
    Device {
        node: row.node,
        name: row.name.clone(),
        state: row.state,
        role: row.role,
        person: row.person,
        software: row.software.clone(),
        addresses: row.addresses.clone(),
        presence,
        presence_since,
        last_seen,
        registered_at: row.created,
        admitted_at: row.admitted,
        expires: row.expires,
        words: (row.state == State::Pending).then(words),
    }
}

/// A device as administrators see it: with its words also once it is in, where an invite let it in unseen.
pub(super) fn shown(control: &Control, row: &DeviceRow) -> Device {
    let shown = device(control, row);
    let words = (row.state == State::Approved).then(|| challenge::words(&row.network, &row.node).to_string());
    Device {
        words: shown.words.or(words),
        ..shown
    }
}

/// A network.
pub(super) fn network(control: &Control, row: &NetworkRow, now: UnixTime) -> Network {
    Network {
        id: row.id,
        name: row.name.clone(),
        created_at: row.created,
        authorised: issue::authority(control, row, now).is_ok(),
        authorised_until: row.issuer.as_ref().map(|chain| chain.leaf.claims().expires),
        devices: count(row.devices),
        latest: count(row.latest),
    }
}

/// Where a page begins: after the place that a cursor names. The cursor of one list is none of another.
pub(super) fn after(list: &str, network: Option<&NetworkId>, cursor: Option<&Cursor>) -> Result<Option<i64>, Refusal> {
    let Some(cursor) = cursor else { return Ok(None) };
    let read = || {
        let text = String::from_utf8(cursor.bytes()?).ok()?;
        let (of, place) = text.rsplit_once(' ')?;
        (of == named(list, network)).then(|| place.parse().ok())?
    };
    let place = read().ok_or_else(|| {
        let words = "the cursor is none that this list gave";
        Refusal::because(dawn_control_api::Code::Malformed, words).next("begin with the first page")
    })?;
    Ok(Some(place))
}

fn named(list: &str, network: Option<&NetworkId>) -> String {
    match network {
        Some(network) => format!("{list} {network}"),
        None => list.to_owned(),
    }
}

/// A page of `most` items, of which one more were asked for. Each has its place.
pub(super) fn page<T>(
    list: &str,
    network: Option<&NetworkId>,
    mut items: Vec<(i64, T)>,
    most: u32,
) -> Result<Page<T>, ControlError> {
    let most = most as usize;
    let more = items.len() > most;
    items.truncate(most);
    let next = match items.last() {
        Some((place, _)) if more => {
            let text = format!("{} {place}", named(list, network));
            Some(Cursor::of(text.as_bytes()).map_err(ControlError::corrupt)?)
        }
        _ => None,
    };
    let items = items.into_iter().map(|(_, item)| item).collect();
    Ok(Page { items, next })
}
