"""The web app: leaderboard, run viewer, and arena."""
