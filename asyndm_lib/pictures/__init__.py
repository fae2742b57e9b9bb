"""Pictures of the method at work: what a run did, and the sheet that shows it."""
