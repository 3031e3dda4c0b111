"""Results that travel: runs in the layouts of other tools, and results of other tools as runs."""
