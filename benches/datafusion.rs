//! DataFusion by itself, as its own command line would run one query: a process
//! that registers Parquet files, runs the query and prints the rows as CSV. The
//! version, the compiler's settings and the allocator are those of `fuseline`.
//! `benches/sql.py` builds it and holds `fuseline sql` against it.
//!
//!     datafusion QUERY NAME=FILE...

use std::io;

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [query, files @ ..] = arguments.as_slice() else { return Err("usage: datafusion QUERY NAME=FILE...".into()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let threads = std::thread::available_parallelism()?.get();
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
        for file in files {
            let (name, path) = file.split_once('=').ok_or("a file is given as NAME=FILE")?;
            context.register_parquet(name, path, ParquetReadOptions::default()).await?;
        }
        let mut writer = arrow::csv::Writer::new(io::stdout());
        for batch in context.sql(query).await?.collect().await? {
            writer.write(&batch)?;
        }
        Ok(())
    })
}
