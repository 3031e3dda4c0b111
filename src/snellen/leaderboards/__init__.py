"""Leaderboards as data: entries, queries, ranking."""
