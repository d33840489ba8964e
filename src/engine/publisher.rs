//! Publishes what the stages of this process made. Those that end while the
//! disk is busy with others are published in one go after that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use fuseline_contract::StageError;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::publish::{Committed, Pending, together};

/// How many are published in one go, at most.
const MOST: usize = 512;

type Reply = Sender<Result<Committed>>;

/// A thread that publishes; it ends when this is dropped.
pub(crate) struct Publisher {
    /// Taken only when dropped.
    queue: Option<Sender<(Pending, Reply)>>,
    thread: Option<JoinHandle<()>>,
    waiting: AtomicUsize,
}

impl Publisher {
    /// Starts the thread.
    pub fn start(store: &Store) -> Result<Self> {
        let (send, receive) = channel();
        let store = store.clone();
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || serve(&store, &receive));
        let thread = thread
            .map_err(|error| Error::Stage(StageError::environment(format!("failed to start a thread: {error}"))))?;
        Ok(Self { queue: Some(send), thread: Some(thread), waiting: AtomicUsize::new(0) })
    }

    /// Whether so many results wait that stages had better not overtake the disk.
    pub fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= MOST
    }

    /// Takes a result: it is published after all that were taken before it, or with them.
    pub fn take(&self, result: Pending) -> Taken<'_> {
        let (reply, answer) = channel();
        let queue = self.queue.as_ref().expect("there until dropped");
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // It fails only if the thread panicked, and then nobody answers.
        let _ = queue.send((result, reply));
        Taken { publisher: self, answer }
    }
}

/// A result that will be published.
pub(crate) struct Taken<'a> {
    publisher: &'a Publisher,
    answer: Receiver<Result<Committed>>,
}

impl Taken<'_> {
    /// Waits until it is.
    pub fn committed(self) -> Result<Committed> {
        let committed = self.answer.recv();
        self.publisher.waiting.fetch_sub(1, Ordering::Relaxed);
        committed.unwrap_or_else(|_| Err(Error::Stage(StageError::bug("the publishing thread ended"))))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(store: &Store, queue: &Receiver<(Pending, Reply)>) {
    while let Ok(first) = queue.recv() {
        let group = std::iter::once(first).chain(queue.try_iter()).take(MOST);
        let (results, replies): (Vec<Pending>, Vec<Reply>) = group.unzip();
        for (reply, committed) in replies.iter().zip(together(store, results)) {
            // Who asked may be gone: the run was stopped at once.
            let _ = reply.send(committed);
        }
    }
}
