"""The parts of a diagnosis, one per file; any file here with a ``PART`` adds one."""
