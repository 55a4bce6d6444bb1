//! The README's walk-through: commands of `kmr-demo` and `kmr` against real servers.

use anyhow::Result;
use integration_tests::{ClickHouse, Kafka, test_name};

use crate::programs::{demo, kmr};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_ends_with_a_clean_audit_which_finds_what_is_missing_or_double() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let topic = kafka.create_topic(test_name!(), 2).await?;
    let clickhouse = database.server().url().trim_start_matches("http://").to_owned();
    let table = ["--clickhouse", &clickhouse, "--database", database.name()];
    let source = ["--broker", kafka.bootstrap(), "--topic", topic.name()];
    let verify = [&["verify", "--group", topic.name()][..], &source, &table].concat();

    let (code, output) = demo(&[&["create-table"][..], &table].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = demo(&[&["produce", "--count", "10000"][..], &source].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = kmr(&[&["check"][..], &source, &table].concat()).await?;
    assert!(code == Some(0) && output.contains("names, types and defaults"), "{output}");
    let run = ["run", "--until-idle", "1s", "--group", topic.name()];
    let (code, output) = demo(&[&run[..], &source, &table].concat()).await?;
    assert!(code == Some(0) && output.contains("10,000 rows delivered"), "{output}");
    let (code, output) = kmr(&verify).await?;
    assert!(
        code == Some(0) && output.contains("10,000 records") && output.contains("0 missing, 0 double"),
        "{output}"
    );

    database.exec("DELETE FROM kmr_consumer_ingest WHERE partition = 0 AND offset IN (4, 5)").await?;
    let (code, output) = kmr(&verify).await?;
    assert!(code == Some(1) && output.contains("2 missing, 0 double"), "{output}");
    let (code, output) = kmr(&[&verify[..], &["--allow-missing", "2"]].concat()).await?;
    assert_eq!(code, Some(0), "{output}");

    database
        .exec("INSERT INTO kmr_consumer_ingest SELECT * FROM kmr_consumer_ingest WHERE partition = 1 LIMIT 3")
        .await?;
    let (code, output) = kmr(&verify).await?;
    assert!(code == Some(1) && output.contains("2 missing, 3 double"), "{output}");
    Ok(())
}
