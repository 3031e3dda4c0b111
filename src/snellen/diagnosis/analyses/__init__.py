"""What can be diagnosed, one part a file; a file with a ``PART`` is all that another part takes."""
