//! To which client of a shared connection a task belongs.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::jsonrpc::{Members, Message, Peek, text};

/// Tasks that are remembered.
const MOST: usize = 4096;

/// Who made which task.
#[derive(Debug, Default)]
pub(super) struct Tasks(HashMap<String, Maker>);

/// Who made a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maker {
    pub(super) link: u64,
    pub(super) caller: Option<String>,
}

impl Tasks {
    /// An answer may say that a task was made.
    pub(super) fn learn(&mut self, message: &Message, peek: &Peek<'_>, maker: impl FnOnce() -> Maker) {
        if memchr::memmem::find(message.as_bytes(), b"\"taskId\"").is_none() {
            return;
        }
        let id = peek.result.and_then(Members::of).and_then(|result| {
            let task = Members::of(result.get("task")?)?;
            Some(text(task.get("taskId")?)?.into_owned())
        });
        let Some(id) = id else { return };
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(id, maker());
    }

    /// Who made the task of that raw id.
    pub(super) fn maker(&self, id: &RawValue) -> Option<&Maker> {
        self.0.get(&*text(id)?)
    }

    /// Who made the task that a question of the agent belongs to.
    pub(super) fn asked_of(&self, peek: &Peek<'_>) -> Option<&Maker> {
        let related = peek.meta()?.related_task.and_then(Members::of)?;
        self.maker(related.get("taskId")?)
    }
}
