"""Exchange results: runs in other tools' layouts, and other tools' results as runs."""
