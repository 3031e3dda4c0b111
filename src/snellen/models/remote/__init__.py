"""What models behind an address share: tries, pace, money, and the chat protocol."""
