"""Tables, reports and progress."""
