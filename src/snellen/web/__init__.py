"""The browser: leaderboard, runs under the magnifying glass, and an arena of one's own."""
