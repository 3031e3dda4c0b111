"""Tables, progress, exports."""
