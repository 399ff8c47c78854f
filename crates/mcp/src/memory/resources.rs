//! The two resources: the latest notes, and statistics.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents};

use super::agent::{protocol_error, render};
use super::limits;
use super::store::MemoryStore;

/// The notes written last, as Markdown.
pub(super) const RECENT: &str = "memory://recent";
/// Statistics, as JSON.
pub(super) const STATS: &str = "memory://stats";
/// Every resource. Each changes whenever a note does.
pub(super) const URIS: [&str; 2] = [RECENT, STATS];

/// The resource's own URI.
///
/// # Errors
/// There is none of that URI.
pub(super) fn known(uri: &str) -> Result<&'static str, ErrorData> {
    URIS.into_iter().find(|known| *known == uri).ok_or_else(|| {
        let message = format!("there is no resource {uri:?} here, only {}", URIS.join(" and "));
        ErrorData::resource_not_found(message, Some(serde_json::json!({ "uri": uri })))
    })
}

/// The list of resources.
pub(super) fn all() -> Vec<Resource> {
    vec![
        Resource::new(RECENT, "recent")
            .with_title("Recent notes")
            .with_description("The notes written last, the newest first")
            .with_mime_type("text/markdown"),
        Resource::new(STATS, "stats")
            .with_title("Statistics")
            .with_description("How many notes there are, their size, tags and authors")
            .with_mime_type("application/json"),
    ]
}

/// The contents of a resource.
///
/// # Errors
/// The database fails.
pub(super) async fn read(store: &MemoryStore, uri: &'static str) -> Result<ReadResourceResult, ErrorData> {
    let contents = if uri == STATS {
        let stats = store.stats().await.map_err(protocol_error)?;
        let text = serde_json::to_string_pretty(&stats)
            .map_err(|error| ErrorData::internal_error(format!("cannot write statistics: {error}"), None))?;
        ResourceContents::text(text, uri).with_mime_type("application/json")
    } else {
        let page = store
            .list(None, None, limits::PAGE_NOTES_DEFAULT)
            .await
            .map_err(protocol_error)?;
        let text = if page.notes.is_empty() {
            "Nothing is remembered yet.\n".to_owned()
        } else {
            render(&page.notes)
        };
        ResourceContents::text(text, uri).with_mime_type("text/markdown")
    };
    Ok(ReadResourceResult::new(vec![contents]))
}
