"""The eye test: charts, psychometric curves, and the card."""
