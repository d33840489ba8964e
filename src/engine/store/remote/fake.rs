//! Objects in memory that fail on purpose, for tests.

use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, PutMultipartOptions, PutOptions,
    PutPayload, PutResult,
};

use super::*;

/// What goes wrong with blobs, or with everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// Nobody answers.
    Down,
    /// Blobs can be asked about but not fetched.
    Refuses,
    /// Blobs end early.
    Truncates,
    /// A bit of a blob is another.
    Corrupts,
    /// Blobs are said to be there and are not.
    Loses,
}

/// Every trouble but none.
pub(crate) const TROUBLES: [Trouble; 5] =
    [Trouble::Down, Trouble::Refuses, Trouble::Truncates, Trouble::Corrupts, Trouble::Loses];

/// Objects in memory.
#[derive(Debug)]
pub(crate) struct Fake {
    pub inner: InMemory,
    pub trouble: Mutex<Trouble>,
    /// Blobs that were fetched, manifests too.
    pub fetched: AtomicUsize,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: InMemory::new(), trouble: Mutex::new(Trouble::None), fetched: AtomicUsize::new(0) })
    }

    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().expect("free") = trouble;
    }

    /// A remote store over these objects.
    pub fn remote(self: &Arc<Self>) -> Remote {
        Remote::of("fake://objects", self.clone(), ObjectPath::from("team")).expect("threads start")
    }

    /// The objects whose path holds a text.
    pub fn paths(&self, part: &str) -> Vec<ObjectPath> {
        let all: Vec<ObjectMeta> =
            self.inner.list(None).try_collect().now_or_never().expect("memory answers").expect("well");
        all.into_iter().map(|meta| meta.location).filter(|path| path.as_ref().contains(part)).collect()
    }

    pub fn read(&self, path: &ObjectPath) -> Vec<u8> {
        let bytes = async { self.inner.get(path).await?.bytes().await };
        bytes.now_or_never().expect("memory answers").expect("there").to_vec()
    }

    pub fn write(&self, path: &ObjectPath, bytes: &[u8]) {
        self.inner.put(path, bytes.to_vec().into()).now_or_never().expect("memory answers").expect("well");
    }

    pub fn remove(&self, path: &ObjectPath) {
        self.inner.delete(path).now_or_never().expect("memory answers").expect("well");
    }

    fn now(&self) -> Trouble {
        *self.trouble.lock().expect("free")
    }

    fn down(&self) -> object_store::Result<()> {
        match self.now() {
            Trouble::Down => Err(broken("https://host/path?sig=hidden refused the connection")),
            _ => Ok(()),
        }
    }
}

fn broken(message: &str) -> object_store::Error {
    object_store::Error::Generic { store: "fake", source: message.into() }
}

impl std::fmt::Display for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("fake")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Fake {
    async fn put_opts(
        &self,
        to: &ObjectPath,
        bytes: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.down()?;
        self.inner.put_opts(to, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.down()?;
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        self.down()?;
        let asks_only = options.head;
        let mut result = self.inner.get_opts(from, options).await?;
        // Manifests are found whole, so that the fault is met when a run already counts on the result.
        if asks_only || !from.as_ref().contains("/cas/") || result.meta.size < 1000 {
            return Ok(result);
        }
        self.fetched.fetch_add(1, Ordering::SeqCst);
        let meta = result.meta.clone();
        let damaged = |bytes: Vec<u8>| GetResultPayload::Stream(stream::iter([Ok(bytes.into())]).boxed());
        match self.now() {
            Trouble::None | Trouble::Down => {}
            Trouble::Refuses => return Err(broken("not today")),
            Trouble::Loses => {
                let source = "gone".into();
                return Err(object_store::Error::NotFound { path: from.to_string(), source });
            }
            Trouble::Truncates => {
                let bytes = result.bytes().await?;
                result = GetResult { payload: damaged(bytes[..bytes.len() / 2].to_vec()), ..whole(meta) };
            }
            Trouble::Corrupts => {
                let mut bytes = result.bytes().await?.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                result = GetResult { payload: damaged(bytes), ..whole(meta) };
            }
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.down() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn whole(meta: ObjectMeta) -> GetResult {
    let range = 0..meta.size;
    GetResult {
        payload: GetResultPayload::Stream(stream::empty().boxed()),
        meta,
        range,
        attributes: Default::default(),
    }
}
