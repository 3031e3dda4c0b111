"""The workspace: a database, Parquet shards, image previews."""
