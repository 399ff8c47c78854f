//! News: changes of the registry that neighbours pass on. Only what was new here travels further.

use dawn_gossip::{NewsId, Verdict};
use dawn_identity::NodeId;
use dawn_registry::Refusal;
use dawn_registry::replica::Applied;
use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::sync::lock;

/// Deltas that are taken at once: their signatures are verified together, and they are kept together.
const TOGETHER: usize = 128;

/// News that came.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) id: NewsId,
    /// The neighbour that sent them, not their author.
    pub(super) from: NodeId,
    pub(super) bytes: Vec<u8>,
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::New => "new",
        Verdict::Known => "known",
        Verdict::Refused => "refused",
        Verdict::Ignored => "ignored",
    }
}

impl Directory {
    /// Takes news as they come, until `stop`.
    pub(in crate::directory) async fn take_news(self, stop: CancellationToken) {
        let came = lock(&self.0.talk.came).take();
        let Some(mut came) = came else { return };
        let mut some = Vec::with_capacity(TOGETHER);
        loop {
            let read = stop.run_until_cancelled(came.recv_many(&mut some, TOGETHER)).await;
            if read.is_none_or(|read| read == 0) {
                return;
            }
            self.take_some(&some).await;
            some.clear();
        }
    }

    /// Takes news of several neighbours.
    async fn take_some(&self, some: &[Came]) {
        let (unread, some): (Vec<&Came>, Vec<&Came>) =
            some.iter().partition(|came| self.0.refusing.is_limited(came.from));
        self.accept(unread.into_iter().map(|came| (came, Verdict::Ignored)));
        if some.is_empty() {
            return;
        }
        let mut book = self.book().await;
        let deltas: Vec<&[u8]> = some.iter().map(|came| came.bytes.as_slice()).collect();
        let applied = self.apply_all(&mut book.replica, &deltas);
        let speaks_for_all = book.replica.speaks_for_all();
        self.settle(book, "", Vec::new()).await;
        let (taken, refused): (Vec<_>, Vec<_>) =
            some.into_iter().zip(applied).partition(|(_, applied)| applied.is_ok());
        self.accept(taken.into_iter().map(|(came, applied)| match applied {
            Ok(Applied::New) => (came, Verdict::New),
            Ok(Applied::Known) | Err(_) => (came, Verdict::Known),
        }));
        for (came, applied) in refused {
            if let Err(refusal) = applied {
                let verdict = self.refuse_news(came, &refusal).await;
                self.accept([(came, verdict)]);
            }
        }
        if !speaks_for_all {
            self.renew_own().await;
        }
    }

    /// What a refusal says of who passed the news on: only what no honest node would have taken counts against it.
    async fn refuse_news(&self, came: &Came, refusal: &Refusal) -> Verdict {
        if self.0.refusing.is_limited(came.from) {
            return Verdict::Ignored;
        }
        if let Refusal::Gap(node) = refusal {
            self.fetch(came.from, *node);
        }
        match self.refuse_delta(came.from, &came.bytes, refusal).await {
            true => Verdict::Refused,
            false => Verdict::Ignored,
        }
    }

    fn accept<'a>(&self, verdicts: impl IntoIterator<Item = (&'a Came, Verdict)>) {
        self.gossip(|gossip, now| {
            for (came, verdict) in verdicts {
                self.0.talk.news.count(word(verdict));
                gossip.accept(&came.id, verdict, now);
            }
        });
    }
}
